"""Tests of `pipeline.evaluation`."""
