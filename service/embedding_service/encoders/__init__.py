"""Models behind one narrow protocol, a file for each backend, and where their weights come from."""
