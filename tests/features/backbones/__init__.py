"""Tests of `features.backbones`."""
