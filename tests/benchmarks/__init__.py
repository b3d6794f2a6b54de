"""Benchmarks run and count right; no time is tested."""
