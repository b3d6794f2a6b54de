"""Paths below a corpus root: where links lead, and what a path that is not there may have meant.

Tables travel between systems: with backslashes, in another case of letters, with accents in another
form of Unicode, with or without the folder that the root is. Whoever is told that a file is missing
should be told of the one that is there. Nothing is corrected, for else the same table would be one
corpus on one system and another on the next.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

SUBFOLDERS = 50  # of a root, in which a path is looked for
SHOWN = 5  # names that a message lists of a folder


def _key(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _stem(name: str) -> str:
    return _key(PurePosixPath(name).stem)


class RootPaths:
    """The files below a root. Folders are listed once, so an object serves one reading of a corpus.

    Args:
        root: Folder of the corpus, which may be a link itself.
    """

    def __init__(self, root: Path) -> None:
        self._root, self._real = root, root.resolve()
        self._folders: dict[PurePosixPath, tuple[Path, frozenset[str]]] = {}
        self._listed: dict[str, dict[str, str]] = {}

    def leads_to(self, name: str) -> Path | None:
        """The place outside the root to which links of a path lead; None if it stays below it."""
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
        """A path that is there in place of one that is not, and how it differs, in words."""
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
        """The same to append to a message; empty if there is none."""
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
        """Names in a folder, but for hidden ones, by their form without case."""
        if folder not in self._listed:
            self._listed[folder] = {_key(name): name for name in _visible(self._root / folder)}
        return self._listed[folder]


def held(folder: Path, *wanted: str) -> str:
    """What a folder holds, and what of it may be meant, for messages on what it does not hold.

    Args:
        folder: Where something is missing.
        wanted: Its name, or names of which one would do.
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
    """Names of the links in a folder, without asking for each of its files."""
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
