"""Members of a team who share features by Git and a DVC remote."""
