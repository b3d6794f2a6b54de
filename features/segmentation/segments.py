"""Segments of speech as annotations give them, with their places for messages."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from features.arguments import quoted
from features.errors import ManifestError
from features.files.records import check_text

_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_LARGEST = 1e7  # seconds, 115 days: larger ones are other units
MISSING = frozenset(("", "<na>", "na", "n/a", "none", "null", "nan"))  # speakers, in lower case


@dataclass(frozen=True)
class Segment:
    """A stretch of a recording in which somebody speaks.

    Attributes:
        recording: Name of the recording, as its source has it.
        start: Seconds at which it begins.
        stop: Seconds at which it ends.
        speaker: Who speaks; empty where that is not known.
        text: What is said, or None.
        label: Class, or None.
        place: Place in its source, for messages.
    """

    recording: str
    start: float
    stop: float
    speaker: str = ""
    text: str | None = None
    label: str | None = None
    place: str = ""

    @property
    def seconds(self) -> float:
        """Duration."""
        return self.stop - self.start


class Fault(NamedTuple):
    """A place (of a file, or a recording) that was left out, and why."""

    place: str
    reason: str


@dataclass
class Annotation:
    """Segments of files, and what in them was left out."""

    segments: list[Segment] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)


def read_files(
    path: Path, suffixes: Sequence[str], read: Callable[[Path], Iterator[Segment | Fault]]
) -> Annotation:
    """Read a file of annotations, or all below a folder, in the order of their paths.

    Args:
        path: A file of any suffix, or a folder.
        suffixes: Suffixes of files in the folder, in lower case.
        read: Reader of one file; it may raise `ManifestError` if the file as a whole is wrong.

    Raises:
        ManifestError: If there are no such files.
    """
    files = [path]
    if path.is_dir():
        below = (file for file in sorted(path.rglob("*")) if file.suffix.lower() in suffixes)
        files = [file for file in below if file.is_file() and not file.name.startswith(".")]
    if not files or not path.exists():
        raise ManifestError(
            f"there is no {path}; expected a file of annotations or a folder of them"
            if not path.exists()
            else f"no files of the suffixes {', '.join(suffixes)} are below {path}; expected some"
        )
    found = Annotation()
    for file in files:
        try:
            for each in read(file):
                if isinstance(each, Fault):
                    found.faults.append(each)
                else:
                    found.segments.append(each)
        except ManifestError as error:
            found.faults.append(Fault(str(file), str(error)))
    return found


def time(what: str, text: str) -> float:
    """Parse a time in seconds, which may be negative here.

    Raises:
        ManifestError: If it is no number, or so large that it cannot be seconds.
    """
    found = float(text) if _NUMBER.fullmatch(text) else None
    if found is None or abs(found) > _LARGEST:
        raise ManifestError(f"{what} is {quoted(text)}; expected a number of seconds")
    return found


def name(text: str) -> str:
    """A speaker's name in one spelling of white space; empty if it means none.

    Raises:
        ManifestError: If it holds control characters.
    """
    plain = " ".join(text.split())
    if any(unicodedata.category(char) == "Cc" for char in plain):
        raise ManifestError(f"speaker is {quoted(plain)}; expected no control characters in it")
    return "" if plain.lower() in MISSING else plain


def words(text: str | None) -> str | None:
    """Words on one line; None if there are none.

    Raises:
        ManifestError: If they hold NUL, which no table may.
    """
    plain = " ".join((text or "").split())
    check_text("the text", plain)
    return plain or None
