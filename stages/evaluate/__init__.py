"""The stage evaluate; its command is in __main__."""
