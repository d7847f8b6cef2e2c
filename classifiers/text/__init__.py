"""Text: captions and URLs in, one column a concept out."""
