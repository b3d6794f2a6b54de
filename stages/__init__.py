"""The commands that DVC runs; no numerics in here."""
