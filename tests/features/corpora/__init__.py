"""Tests of `features.corpora`."""
