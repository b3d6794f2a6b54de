"""Tests of `features.corpus`."""
