"""The store of hash lists: versions on disk, imports into it, and what is said of them."""
