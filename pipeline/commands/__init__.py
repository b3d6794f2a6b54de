"""Commands for people: `python -m pipeline <command>`."""
