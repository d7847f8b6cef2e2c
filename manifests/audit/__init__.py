"""The audit log: a transparency log as static files, and proofs that stand on their own."""
