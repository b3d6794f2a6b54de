"""The cached regime: fusion models on features from the cache."""
