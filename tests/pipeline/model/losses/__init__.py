"""Tests of `pipeline.model.losses`."""
