"""The synthesis of the demo corpus."""
