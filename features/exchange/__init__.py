"""Features in and out: import of foreign arrays, export, a torch dataset."""
