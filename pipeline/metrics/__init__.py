"""Scores of predictions: functions of sums that add up over clusters, seeds and folds."""
