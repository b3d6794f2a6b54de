"""Tests of `pipeline.costs`."""
