"""Readers: where samples come from."""
