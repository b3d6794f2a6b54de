"""Tests of `pipeline.report`."""
