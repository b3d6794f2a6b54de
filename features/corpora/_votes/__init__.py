"""Raters of published corpora: their tables, their votes by class, policies where they disagree."""
