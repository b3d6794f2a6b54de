"""A small transformer."""

SMALL = {"d_model": 16, "heads": 2, "hidden": 8}
