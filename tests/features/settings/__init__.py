"""Tests of `features.settings`."""
