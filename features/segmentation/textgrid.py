"""Reads TextGrid files of Praat, in the long and the short text format and in its encodings.

To Praat a text file is a series of numbers, texts between quotation marks (a doubled mark stands
for one) and flags such as <exists>; all else, and what follows `!` on a line, is a comment (Praat's
manual, "TextGrid file formats"). So one reader does for both formats: the long one only has more
comments. Praat writes ASCII or Latin-1 where that holds the texts, else UTF-16; other programs
write UTF-8.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from features.arguments import quoted
from features.errors import ManifestError
from features.files.reading import read_regular
from features.segmentation.segments import Segment, name, time, words

SUFFIXES = (".textgrid",)
MOST_DIGITS = 9  # of a number of tiers or intervals
INTERVALS, POINTS = "IntervalTier", "TextTier"
_BINARY = b"ooBinaryFile"
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
# A text, a comment, or a word; `=` ends a word, since some programs leave out the spaces around it.
_TOKEN = re.compile(r'"((?:[^"]|"")*)"|!.*|([^\s"=!]+)')
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_FLAG = re.compile(r"<\w+>")


@dataclass(frozen=True)
class Choice:
    """Intervals of interest, and what their labels hold.

    Attributes:
        tiers: Names of the tiers; none: all tiers of intervals.
        speakers: Whether labels are names of speakers; else they are what is said, and the
            tier's name is the speaker's.
        ignored: Labels that mean that nobody speaks, besides an empty one.
    """

    tiers: Sequence[str] = ()
    speakers: bool = False
    ignored: Sequence[str] = ()


def read_textgrid(path: Path, recording: str, choice: Choice) -> Iterator[Segment]:
    """Intervals of a TextGrid file with a label.

    Args:
        path: The file.
        recording: Name of its recording.
        choice: Which intervals.

    Raises:
        ManifestError: If the file is no TextGrid, ends early, or lacks one of the tiers.
    """
    reader = _Reader(decoded(read_regular(path)))
    reader.header()
    tiers = [tier for _ in range(reader.count("number of tiers")) if (tier := reader.tier())]
    names = [tier.name for tier in tiers]
    lacking = [wanted for wanted in choice.tiers if wanted not in names]
    if lacking or not tiers:
        wanted = f"the tiers {lacking}" if lacking else "a tier of intervals"
        raise ManifestError(f"has the tiers of intervals {names}; expected {wanted}")
    for tier in tiers:
        if choice.tiers and tier.name not in choice.tiers:
            continue
        for number, (start, stop, label) in enumerate(tier.intervals, 1):
            said = words(label)
            if said is None or said in choice.ignored:
                continue
            yield Segment(
                recording=recording,
                start=start,
                stop=stop,
                speaker=name(said if choice.speakers else tier.name),
                text=None if choice.speakers else said,
                place=f"{path}, tier {quoted(tier.name)}, interval {number}",
            )


def decoded(content: bytes) -> str:
    """Decode a TextGrid: UTF-16 by its byte order mark, else UTF-8, else Latin-1 as Praat does.

    Raises:
        ManifestError: If it is binary.
    """
    if content.startswith(_BINARY):
        raise ManifestError(
            "is a binary file of Praat; expected text: open it there, and `Save as text file`"
        )
    if content.startswith(_UTF_16):
        try:
            return content.decode("utf-16")
        except UnicodeDecodeError as error:
            raise ManifestError(f"begins as UTF-16 but is none ({error.reason})") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        text = content.decode("latin-1")
    if "\0" in text:
        raise ManifestError("holds NUL characters; expected the text of a TextGrid")
    return text


@dataclass(frozen=True)
class _Tier:
    name: str
    intervals: list[tuple[float, float, str]]


class _Reader:
    """The numbers, texts and flags of a file, one after another."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens = self._data()

    def _data(self) -> Iterator[tuple[int, str, bool]]:
        """Offset, content, and whether it is a text between quotation marks."""
        for found in _TOKEN.finditer(self._text):
            text, word = found.groups()
            if text is not None:
                yield found.start(), text.replace('""', '"'), True
            elif word is not None and (_NUMBER.fullmatch(word) or _FLAG.fullmatch(word)):
                yield found.start(), word, False

    def header(self) -> None:
        """Read past `ooTextFile`, `TextGrid`, the times of the whole, and <exists>."""
        kinds = (self._next("the file type", text=True), self._next("`TextGrid`", text=True))
        if not kinds[0].startswith("ooTextFile") or kinds[1] != "TextGrid":
            shown = f"{quoted(kinds[0])}, {quoted(kinds[1])}"
            raise ManifestError(f'begins with {shown}; expected "ooTextFile" and "TextGrid"')
        self.number("the time at which the file begins")
        self.number("the time at which the file ends")
        if self._next("<exists>", text=False) != "<exists>":
            raise ManifestError("has no tiers")

    def tier(self) -> _Tier | None:
        """Read the next tier; None if it holds points."""
        kind, title = self.text("a tier's class"), self.text("a tier's name")
        self.number(f"the time at which tier {title!r} begins")
        self.number(f"the time at which tier {title!r} ends")
        count = self.count(f"the size of tier {title!r}")
        if kind == POINTS:
            for number in range(1, count + 1):
                self.number(f"the time of point {number} of tier {title!r}")
                self.text(f"the mark of point {number} of tier {title!r}")
            return None
        if kind != INTERVALS:
            raise ManifestError(
                f"tier {title!r} is of class {quoted(kind)}; expected {INTERVALS} or {POINTS}"
            )
        intervals = []
        for number in range(1, count + 1):
            of = f"of interval {number} of tier {title!r}"
            bounds = self.number(f"the start {of}"), self.number(f"the end {of}")
            intervals.append((*bounds, self.text(f"the text {of}")))
        return _Tier(" ".join(title.split()), intervals)

    def number(self, what: str) -> float:
        """Read a time."""
        return time(what, self._next(what, text=False))

    def count(self, what: str) -> int:
        """Read a number of things."""
        found = self._next(what, text=False)
        if not found.isdecimal() or len(found) > MOST_DIGITS:
            raise ManifestError(f"{what} is {quoted(found)}; expected a number of things")
        return int(found)

    def text(self, what: str) -> str:
        """Read a text."""
        return self._next(what, text=True)

    def _next(self, what: str, *, text: bool) -> str:
        offset, found, is_text = next(self._tokens, (-1, "", text))
        if offset < 0:
            raise ManifestError(f"ends early; expected {what}")
        if is_text != text:
            line = self._text.count("\n", 0, offset) + 1
            raise ManifestError(f"line {line} has {quoted(found)}; expected {what}")
        return found
