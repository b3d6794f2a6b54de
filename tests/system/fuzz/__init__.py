"""Seeded damage to what people write and what the stages read."""
