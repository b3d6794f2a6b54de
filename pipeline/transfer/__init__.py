"""Transfer between corpora: models of each corpus and of their union, tested on all of them."""
