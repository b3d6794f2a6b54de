"""Pretrained weights: found, checked, loaded without unpickling, identified by hash."""
