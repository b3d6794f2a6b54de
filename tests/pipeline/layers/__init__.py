"""Tests of `pipeline.transfer`."""
