"""Benchmarks that README quotes; each file runs as `python -m benchmarks.NAME [--json]`."""
