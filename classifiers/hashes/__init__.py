"""Digests of bytes and perceptual hashes of pixels, one small file each."""
