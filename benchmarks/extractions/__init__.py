"""Benchmarks of extraction: several entries in one pass, several devices, long recordings."""
