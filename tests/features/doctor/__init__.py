"""Tests of `features.doctor`."""
