"""Tests of `features.process`."""
