"""params.yaml as records."""
