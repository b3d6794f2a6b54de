"""Tests of `pipeline.predict`."""
