"""Tests: statements of theory, and every mistake a user can make."""
