"""Tests of `features.networks`."""
