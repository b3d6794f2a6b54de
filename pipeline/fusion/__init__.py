"""One module per fusion kind."""
