"""Image towers: pixels in, embeddings out."""
