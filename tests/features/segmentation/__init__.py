"""Tests of `features.segmentation`."""
