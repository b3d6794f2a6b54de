"""Processes, servers and members of a team."""
