"""Tests of `features.exchange`."""
