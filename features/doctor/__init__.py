"""Faults of cache folders: found, named, and taken out of the way."""
