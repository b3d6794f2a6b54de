"""Paired comparison of runs on the same utterances."""
