"""The stage look; its command is in __main__."""
