"""Reads run folders and computes scores, intervals, baselines, calibration and groups."""
