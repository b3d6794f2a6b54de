"""Pretrained weights: where a checkpoint lies, checked and loaded without unpickling."""
