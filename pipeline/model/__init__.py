"""Contract of fusion models: batches, predictions, losses, checkpoints."""
