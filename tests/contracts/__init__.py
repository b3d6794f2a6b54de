"""What every plug-in keeps, found by globbing its folder."""
