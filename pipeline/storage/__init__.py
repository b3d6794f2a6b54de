"""DVC remotes, the lock files, and the disk space of caches and work store."""
