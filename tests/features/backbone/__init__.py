"""Tests of `features.backbone`."""
