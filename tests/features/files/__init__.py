"""Tests of `features.files`."""
