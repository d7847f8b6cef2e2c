"""Models before a run: which are known, getting their files, checking them."""
