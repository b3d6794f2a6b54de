"""Tests of `pipeline.speech_llm.models`."""
