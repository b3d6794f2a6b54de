"""Tests of `pipeline.metrics`."""
