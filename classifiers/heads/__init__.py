"""Heads: embeddings in, one score a row out."""
