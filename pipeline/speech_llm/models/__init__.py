"""Speech language models of transformers, one file for each family of checkpoints."""
