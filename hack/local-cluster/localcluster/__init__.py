"""The local cluster: one real Kubernetes node in its own Linux namespaces (see ../README.md)."""
