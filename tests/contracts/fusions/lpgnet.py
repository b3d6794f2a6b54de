"""A small LPGNet."""

SMALL = {"d_model": 16, "heads": 2}
