"""The extraction engine: a manifest and a backbone to a cache folder."""
