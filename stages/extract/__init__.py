"""The stage extract; its command is in __main__."""
