"""Tests of `features.audio`."""
