"""Losses by kind of target."""
