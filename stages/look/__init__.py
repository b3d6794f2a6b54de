"""Stage; see __main__."""
