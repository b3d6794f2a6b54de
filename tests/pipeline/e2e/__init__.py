"""Tests of `pipeline.e2e`."""
