"""Formats in which lists of hashes and URLs come, one file each; the names are in `registry`."""
