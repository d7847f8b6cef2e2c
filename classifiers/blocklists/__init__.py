"""Hash lists: reading them and matching them exactly."""
