"""Tests of `features.weights`."""
