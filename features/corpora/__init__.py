"""One module per kind of corpus."""
