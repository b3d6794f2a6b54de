"""A small HCAM."""

SMALL = {"d_model": 8, "heads": 2, "hidden": 8}
