"""Resolves links below a corpus root, and suggests the file that a missing path may mean.

Tables travel between systems: with backslashes, in another case of letters, with accents in another
form of Unicode, with or without the name of the root. A message about a missing file names the one
that exists. Nothing is corrected, since the same table would then be different corpora on different
systems.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

SUBFOLDERS = 50  # subfolders of a root in which a path is looked for
SHOWN = 5  # names of a folder's files that a message lists


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _stem(name: str) -> str:
    return _key(PurePosixPath(name).stem)


class RootPaths:
    """The files below a root, whose folders are listed once: an object serves one pass.

    Args:
        root: Folder of the corpus, which may be a link itself.
    """

    def __init__(self, root: Path) -> None:
        self._root, self._real = root, root.resolve()
        self._folders: dict[PurePosixPath, tuple[Path, frozenset[str]]] = {}
        self._listed: dict[str, dict[str, str]] = {}

    def leads_to(self, name: str) -> Path | None:
        """Target outside the root to which links of a path lead; None if it is below the root."""
        path = PurePosixPath(name)
        if path.parent not in self._folders:
            folder = (self._root / path.parent).resolve()
            self._folders[path.parent] = folder, _links(folder)
        folder, links = self._folders[path.parent]
        place = folder / path.name
        if path.name in links:
            place = place.resolve()
        return None if place.is_relative_to(self._real) else place

    def nearest(self, name: str) -> tuple[str, str] | None:
        """An existing path similar to a missing one, and how it differs, in words; None: none."""
        parts = [part for part in re.split(r"[/\\]+", name) if part not in ("", ".")]
        found = self._found(parts)
        if found is not None:
            return found, _difference(name, found)
        for first in range(1, len(parts)):
            found = self._found(parts[first:])
            if found is not None:
                return found, f"without the folder {'/'.join(parts[:first])}"
        for folder in sorted(self._names("").values())[:SUBFOLDERS] if parts else ():
            found = self._found([folder, *parts])
            if found is not None:
                return found, "one folder down"
        found = self._found(parts, by=_stem)
        return None if found is None else (found, "with another suffix")

    def hint(self, name: str) -> str:
        """The same as text to append to a message; empty if there is none."""
        nearest = self.nearest(name)
        return f"; there is {nearest[0]} ({nearest[1]})" if nearest else ""

    def _found(self, parts: Sequence[str], *, by: Callable[[str], str] = _key) -> str | None:
        here = ""
        for number, part in enumerate(parts, 1):
            names = self._names(here)
            found = names.get(_key(part))
            if found is None and number == len(parts):
                found = next((name for name in names.values() if by(name) == by(part)), None)
            if found is None:
                return None
            here = f"{here}/{found}" if here else found
        return here or None

    def _names(self, folder: str) -> dict[str, str]:
        """Names in a folder, but for hidden ones, by their normalised form."""
        if folder not in self._listed:
            self._listed[folder] = {_key(name): name for name in _visible(self._root / folder)}
        return self._listed[folder]


def held(folder: Path, *wanted: str) -> str:
    """List a folder and suggest which of its files is meant, for messages about a missing one.

    Args:
        folder: Folder in which a file is missing.
        wanted: Names that the file may have.
    """
    names = _visible(folder)
    shown = f"{names[:SHOWN]}" + (f" and {len(names) - SHOWN} more" if names[SHOWN:] else "")
    for name in wanted:
        if _key(PurePosixPath(name).parts[0]) == _key(folder.name):
            return f"{shown} (it is {folder.name} itself: name the folder that holds it)"
        nearest = RootPaths(folder).nearest(name)
        if nearest is not None:
            return f"{shown} (is {nearest[0]!r} meant: {nearest[1]}?)"
    return shown


def _links(folder: Path) -> frozenset[str]:
    """Names of the links in a folder, without a system call for each of its files."""
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries if entry.is_symlink())
    except OSError:
        return frozenset()


def _visible(folder: Path) -> list[str]:
    try:
        return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    except (OSError, ValueError):  # ValueError: NUL
        return []


def _difference(given: str, found: str) -> str:
    if "\\" in given:
        return "with / in place of \\"
    if unicodedata.normalize("NFC", given) == unicodedata.normalize("NFC", found):
        return "in another form of Unicode"
    return "in another case of letters"
