"""A small concat."""

SMALL = {"d_model": 16}
