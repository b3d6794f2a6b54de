"""A small graph-attention fusion."""

SMALL = {"d_model": 16, "heads": 2, "encoder_heads": 2, "f0_embedding": 8, "hidden": 16}
