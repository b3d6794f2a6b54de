"""Finds recordings: files, files below folders, and patterns such as `talks/*.flac`."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path

from features.arguments import in_lines
from features.errors import ManifestError
from features.files.root_paths import held

# Of formats that are decoded, and of those that are refused with what to do.
SOUNDS = (
    ".aac", ".aif", ".aifc", ".aiff", ".au", ".caf", ".flac", ".m4a", ".mp3", ".mp4", ".oga",
    ".ogg", ".opus", ".raw", ".rf64", ".sph", ".w64", ".wav", ".webm", ".wma",
)  # fmt: skip


def find_recordings(given: Sequence[str]) -> list[Path]:
    """Find recordings, each once, in the order given and below a folder in that of their paths.

    Args:
        given: Files of any suffix; folders, below which files of the suffixes `SOUNDS` are found
            but for hidden ones; patterns with `*`, `?`, `[]` or `**`, which may match either.

    Raises:
        ManifestError: Listing what does not exist, matches nothing, or holds no recordings.
    """
    found: dict[Path, None] = {}
    faults = []
    for name in given:
        path = Path(name)
        if path.exists():
            matches = [path]
        elif glob.has_magic(name):
            names = glob.glob(name, recursive=True)  # noqa: PTH207  Path.glob: relative ones alone
            matches = [Path(each) for each in sorted(names)]
        else:
            matches = []
        files = [file for match in matches for file in _files(match)]
        if not files:
            faults.append(_fault(name, path))
        found |= dict.fromkeys(files)
    if faults or not given:
        raise ManifestError(in_lines(faults) if faults else "no recordings are named")
    return list(found)


def _files(path: Path) -> Iterator[Path]:
    if not path.is_dir():
        yield path
        return
    for below in sorted(path.rglob("*")):
        # macOS leaves a `._` file beside each file that it copies.
        hidden = any(part.startswith(".") for part in below.relative_to(path).parts)
        if below.suffix.lower() in SOUNDS and below.is_file() and not hidden:
            yield below


def _fault(name: str, path: Path) -> str:
    if path.is_dir():
        holds = f"holds {held(path)}" if any(path.iterdir()) else "is empty"
        return (
            f"no recordings are below the folder {name}, which {holds}; expected files with one of "
            f"the suffixes {', '.join(SOUNDS)}"
        )
    if glob.has_magic(name):
        return f"nothing matches {name}; expected a pattern of recordings, such as 'talks/*.wav'"
    beside = f"; {path.parent} holds {held(path.parent, path.name)}" if path.name else ""
    return f"there is no {name}{beside}; expected a recording, or a folder of recordings"
