"""A trained model on a web page: record or choose a clip, and see what the model answers."""
