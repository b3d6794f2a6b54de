"""Commands that run several stages or experiments: recipe, prompts, build, transfer."""
