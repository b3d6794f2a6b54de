"""Imports features made elsewhere, exports features, and serves them as a torch dataset."""
