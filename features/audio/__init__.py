"""Audio files to samples, and signal processing on samples."""
