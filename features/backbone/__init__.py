"""Interface of backbones, their entries in params.yaml, and their choice of layers."""
