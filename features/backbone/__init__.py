"""What a backbone is, its entry in params.yaml, and the layers it yields."""
