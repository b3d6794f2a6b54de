"""Feature cache: sealed HDF5 shards, written once and read by utterance id."""
