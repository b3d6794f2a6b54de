"""Caches, work store and DVC remotes: what they hold, pruning, sharing."""
