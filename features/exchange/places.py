"""Finds the array of each utterance in a folder or file of unknown origin.

A folder may have an `index.csv` with the columns id, file and, for files of several arrays, key.
Without one, a file's path below the folder or its bare name, without the suffix, is the id of its
utterance, and a file named after no utterance may hold several arrays, named by ids. Paths out of
the folder are refused, by `..` as well as by a symbolic link.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

from features.errors import CacheError, ParamsError
from features.exchange.arrays import FORMATS, READERS, REFUSED, ArrayReader
from features.files.reading import open_text

INDEX = "index.csv"


@dataclass(frozen=True)
class Place:
    """A file and the name of an array in it; None: its only array."""

    path: Path
    name: str | None = None


@dataclass
class Places:
    """Places of arrays that were found.

    Attributes:
        root: Folder that was searched, or that of the file.
        by_id: Place of the array of each utterance of the corpus.
        extra: Files and names of arrays that belong to no utterance of the corpus.
        refused: Reasons by file or id of what is not read.
    """

    root: Path
    by_id: dict[str, Place] = field(default_factory=dict)
    extra: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)

    def put(self, id: str, place: Place) -> None:
        """Add an array; two arrays for one utterance are both refused."""
        other = self.by_id.get(id)
        # Refused already: for two arrays, or by the index.
        if id in self.refused:
            return
        if other is not None:
            del self.by_id[id]
            self.refused[id] = f"has two arrays, {self.shown(other)} and {self.shown(place)}"
        else:
            self.by_id[id] = place

    def shown(self, place: Place) -> str:
        """The place for messages, relative to the root: folders above differ between machines."""
        path = place.path.relative_to(self.root).as_posix()
        return path if place.name is None else f"{path}[{place.name}]"


def find_places(source: Path, known: Mapping[str, object], reader: ArrayReader) -> Places:
    """Find the arrays of the utterances of a corpus.

    Args:
        source: Folder, or file of several arrays.
        known: Ids of the corpus.
        reader: Reader that lists the arrays of a file.

    Raises:
        ParamsError: If there is no such folder or file, or its index is malformed.
    """
    if source.is_file():
        found = Places(source.parent)
        _look_into(source, found, known, reader)
    elif source.is_dir():
        found = Places(source)
        index = source / INDEX
        if index.is_file():
            for id, place in _indexed(index, found):
                _sort_in(id, place, found, known)
        else:
            _walk(found, known, reader)
    else:
        raise ParamsError(f"{source} does not exist; expected a folder of arrays, or a file")
    return found


def _indexed(index: Path, found: Places) -> Iterator[tuple[str, Place]]:
    try:
        with open_text(index) as file:
            rows = csv.DictReader(file)
            if not {"id", "file"} <= set(rows.fieldnames or ()):
                raise ParamsError(
                    f"{index} has the columns {rows.fieldnames}; expected id, file and perhaps key"
                )
            for row in rows:
                id, name = row["id"], row["file"] or ""
                reason = path_fault(found.root, name)
                if reason is None:
                    yield id, Place(found.root / name, row.get("key") or None)
                else:
                    found.refused[id] = f"file {name!r} {reason}"
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ParamsError(f"{index} cannot be read ({error}); expected CSV in UTF-8") from error


def path_fault(root: Path, name: str) -> str | None:
    """Reason why a path does not name a readable file below `root`; None if it does."""
    path = PurePosixPath(name)
    if not name or "\0" in name:
        return "is no path"
    if path.is_absolute() or ".." in path.parts:
        return "leaves the folder; expected a path below it"
    if not (root / path).is_file():
        return "does not exist"
    if not (root / path).resolve().is_relative_to(root.resolve()):
        return "is a link out of the folder; put the file itself there"
    if path.suffix.lower() not in (*READERS, *REFUSED):
        return f"is of no known format; expected one of {FORMATS}"
    return None


def _walk(found: Places, known: Mapping[str, object], reader: ArrayReader) -> None:
    for path in sorted(found.root.rglob("*")):
        name = path.relative_to(found.root).as_posix()
        if path.name.startswith(".") or path.suffix.lower() not in (*READERS, *REFUSED):
            continue
        reason = path_fault(found.root, name)
        if reason is not None:
            found.refused[name] = reason
            continue
        whole, bare = name.removesuffix(path.suffix), path.name.removesuffix(path.suffix)
        named = whole in known or bare in known
        # A refused format does not claim its id: the file it was converted to may lie beside it.
        if named and path.suffix.lower() in READERS:
            found.put(whole if whole in known else bare, Place(path))
        else:
            _look_into(path, found, known, reader)


def _look_into(path: Path, found: Places, known: Mapping[str, object], reader: ArrayReader) -> None:
    """Add the arrays of a file under their names, which are ids."""
    name = path.relative_to(found.root).as_posix()
    try:
        names = reader.names(path)
    except CacheError as error:
        found.refused[name] = str(error)
        return
    if not any(id in known for id in names):
        found.extra.append(name)
        return
    for id in names:
        _sort_in(id, Place(path, id), found, known)


def _sort_in(id: str, place: Place, found: Places, known: Mapping[str, object]) -> None:
    if id in known:
        found.put(id, place)
    else:
        found.extra.append(id)
