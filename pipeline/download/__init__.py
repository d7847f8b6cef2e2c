"""Downloading screened tables: img2dataset behind a loopback gateway that decides what may be contacted."""
