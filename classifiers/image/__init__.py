"""Nets that read pixels: each gives one score a picture, beside those of the embedder's heads."""
