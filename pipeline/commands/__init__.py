"""Commands of `python -m pipeline`: a module for each."""
