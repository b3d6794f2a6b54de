"""Tests of `pipeline.storage`."""
