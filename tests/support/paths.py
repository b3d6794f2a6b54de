"""Folders that tests read: the project, their own data, and the corpora beside the project."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[2]
DATA = ROOT / "tests" / "data"
SHARED = ROOT.parent / "shared"


def contents_of(folder: Path) -> dict[str, bytes]:
    """Bytes of the files in a folder, by name."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
