"""Tests of `features.transcription`."""
