"""Small models, caches and golden vectors."""
