"""Training runs: jobs, record, probes and conditions."""
