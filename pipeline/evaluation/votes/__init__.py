"""Scores of predicted distributions of raters' votes of a run."""
