"""Tests of pipeline.handover."""
