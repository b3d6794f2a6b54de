"""The report of one run: records, metrics.json, and the page with its sections."""
