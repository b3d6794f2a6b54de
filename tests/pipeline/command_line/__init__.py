"""Tests of `pipeline.command_line`."""
