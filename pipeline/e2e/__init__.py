"""The end-to-end regime: fusion models with their backbones, fine-tuned."""
