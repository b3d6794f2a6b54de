"""Scores of predicted attributes of a run: arousal, valence, ..."""
