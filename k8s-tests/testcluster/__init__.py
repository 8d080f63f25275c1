"""A Kubernetes cluster for tests: the current one, kind, or one node of the real components on this machine."""
