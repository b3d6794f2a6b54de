"""The stage e2e; its command is in __main__."""
