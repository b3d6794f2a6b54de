"""Command line: arguments, help and shell completion; `pipeline.commands` does the work."""
