"""A small bigru_cross."""

SMALL = {"d_model": 8, "heads": 2, "hidden": 8}
