"""What one training run is and writes: jobs, record, probes, conditions."""
