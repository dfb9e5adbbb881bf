"""Data plane: build, prove and serve FAISS indexes. Knows nothing of Kubernetes."""
