"""Tests of `pipeline.board`."""
