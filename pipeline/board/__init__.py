"""The table of all experiments, and which of them are tied."""
