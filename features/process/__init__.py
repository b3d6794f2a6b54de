"""The running process: commands, signals, memory, devices, worker processes, the terminal."""
