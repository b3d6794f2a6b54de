"""Networks that transformers does not have, under the key names of their public checkpoints."""
