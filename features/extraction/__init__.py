"""Extraction: a manifest and a backbone to sealed shards, computed once and kept in a store."""
