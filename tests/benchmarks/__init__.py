"""Benchmarks run and count correctly; no speed is tested."""
