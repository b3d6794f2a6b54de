"""Plug-ins, one file each: experiment trackers that `trackers` of params.yaml may name."""
