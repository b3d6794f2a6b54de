"""Labelled features as batches."""
