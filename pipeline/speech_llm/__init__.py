"""Speech language models as baselines: asked for the emotion of each clip, without training."""
