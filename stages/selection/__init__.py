"""The stage selection; its command is in __main__."""
