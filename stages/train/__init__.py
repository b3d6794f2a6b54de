"""The stage train; its command is in __main__."""
