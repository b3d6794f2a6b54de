"""Settings: plug-ins by name, entries of params.yaml, places of this machine."""
