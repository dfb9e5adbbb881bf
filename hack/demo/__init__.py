"""`make demo`: a real Kubernetes builds, proves, serves, rejects and rolls back vector indexes under live traffic."""
