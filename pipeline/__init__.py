"""Arrays to results: parameters, fusion models, training, metrics and reports."""
