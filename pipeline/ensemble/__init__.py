"""Ensembles: finished runs combined from their saved predictions; no model is loaded."""
