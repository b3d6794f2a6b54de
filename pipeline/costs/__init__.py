"""What experiments cost before they run: bytes of features, and GPU-hours as an estimate."""
