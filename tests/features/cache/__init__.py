"""Tests of `features.cache`."""
