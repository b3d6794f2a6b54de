"""The table of all experiments, and ties with the best one."""
