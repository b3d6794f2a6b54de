"""The stage prepare; its command is in __main__."""
