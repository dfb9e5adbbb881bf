"""Control plane: reconciles VectorIndex resources. Never imports FAISS and never talks to object storage."""
