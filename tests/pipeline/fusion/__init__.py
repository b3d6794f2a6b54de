"""Tests of `pipeline.fusion`."""
