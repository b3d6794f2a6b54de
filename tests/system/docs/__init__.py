"""The documentation: every block, link, page and notebook of it."""
