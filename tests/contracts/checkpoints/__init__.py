"""Small checkpoints for the contract tests, one file a backbone kind."""
