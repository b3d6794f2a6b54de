"""Tables of utterances: cells, text, Parquet, layouts, embedded audio."""
