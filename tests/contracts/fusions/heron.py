"""A small HERON."""

SMALL = {"d_model": 16, "heads": 2, "ffn_mult": 2, "hidden": 8}
