"""Entries that `heronry add` copies into params.yaml, one YAML file each."""
