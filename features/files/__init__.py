"""Files: safe reading, hashes, atomic writing, and tables and records as CSV, JSON and YAML."""
