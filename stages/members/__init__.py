"""The stage members; its command is in __main__."""
