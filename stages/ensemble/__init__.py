"""The stage ensemble; its command is in __main__."""
