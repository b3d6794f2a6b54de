"""Benchmarks by the size of the corpus: manifest and plan, every step, stores and caches, costs."""
