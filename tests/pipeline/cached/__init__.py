"""Tests of `pipeline.cached`."""
