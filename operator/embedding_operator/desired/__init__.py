"""Pure builders, one file for each kind of Kubernetes object: a pipeline → the object. No client, no clock."""
