"""What a fusion model takes, gives and is; losses; checkpoints."""
