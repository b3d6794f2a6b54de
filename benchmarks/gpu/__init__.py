"""Proof of every GPU claim on one machine: `python -m benchmarks.gpu`."""
