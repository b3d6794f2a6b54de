"""Tests of `pipeline.commands`."""
