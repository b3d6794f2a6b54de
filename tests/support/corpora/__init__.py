"""Small corpora, tables and damaged audio."""
