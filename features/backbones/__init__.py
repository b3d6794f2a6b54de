"""One module per kind of backbone."""
