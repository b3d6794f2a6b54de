"""Finds faults of cache folders and moves damaged files away."""
