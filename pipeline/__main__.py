"""Command line of the project, `heronry` or `python -m pipeline`; `--help` lists its commands."""

from __future__ import annotations

from features.process.command import run_command
from pipeline.command_line.app import app


def main() -> None:
    """Run the command line: see `features.process.command`."""
    run_command(app)


if __name__ == "__main__":
    main()
