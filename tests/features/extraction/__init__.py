"""Tests of `features.extraction`."""
