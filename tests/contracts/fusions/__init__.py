"""Small sizes of the fusion models for the contract tests, one file a kind: `SMALL`."""
