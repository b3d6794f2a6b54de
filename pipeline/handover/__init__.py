"""Models handed on: a run as a folder that loads without its project, and predicts."""
