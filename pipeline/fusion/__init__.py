"""Fusion models, one module for each kind; modules with an underscore are shared layers."""
