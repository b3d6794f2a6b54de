"""Entries that `python -m pipeline add` copies into params.yaml, one YAML file each."""
