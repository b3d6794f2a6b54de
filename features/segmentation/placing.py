"""Finds the recording that each segment is of, and refuses segments that no recording can hold.

What is refused is a `Fault` with its reason; all other segments are kept.
"""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from features.segmentation.segments import Fault, Segment

SLACK_SECONDS = 0.1  # beyond the end of a recording, from rounding: cut there
SHOWN = 3  # names that a reason lists
DIGITS = 3  # of seconds in a table


@dataclass(frozen=True)
class Placed:
    """Segments by recording, in the order of the recordings, and what was left out.

    Attributes:
        segments: Valid segments by the path of their recording, in order of start; a recording
            without any has an empty list.
        faults: Segments that were left out, each with its reason.
    """

    segments: Mapping[str, list[Segment]]
    faults: list[Fault]


def place(segments: Sequence[Segment], seconds: Mapping[str, float | None]) -> Placed:
    """Sort segments by recording, and validate their times.

    Args:
        segments: Segments whose `recording` is a name in a file of annotations.
        seconds: Duration of each recording, by its path; None of one that cannot be read, whose
            segments are left out with it.
    """
    find = _Names(list(seconds))
    placed: dict[str, list[Segment]] = {path: [] for path in seconds if seconds[path]}
    faults: list[Fault] = []
    seen: dict[tuple[object, ...], str] = {}
    for segment in segments:
        paths = find.paths(segment.recording)
        if len(paths) != 1:
            faults.append(Fault(segment.place, find.reason(segment.recording, paths)))
            continue
        (path,) = paths
        lasts = seconds[path]
        if lasts is None:
            continue
        reason = _times(segment, lasts)
        if reason:
            faults.append(Fault(segment.place, reason))
            continue
        cut = replace(
            segment,
            recording=path,
            start=round(segment.start, DIGITS),
            stop=floor(min(segment.stop, lasts)),
        )
        if cut.seconds <= 0:
            faults.append(Fault(segment.place, f"is empty: it lasts {segment.seconds:g} s"))
            continue
        key = (path, cut.start, cut.stop, cut.speaker, cut.text)
        if key in seen:
            faults.append(Fault(segment.place, f"repeats {seen[key]}"))
            continue
        seen[key] = segment.place
        placed[path].append(cut)
    for found in placed.values():
        found.sort(key=lambda each: (each.start, each.stop, each.speaker, each.text or ""))
    return Placed(placed, faults)


def floor(seconds: float) -> float:
    """Seconds as a table has them, rounded; never beyond by a digit that was rounded up.

    >>> floor(1.2344), floor(1.2346), floor(0.1 + 0.2)
    (1.234, 1.234, 0.3)
    """
    rounded = round(seconds, DIGITS)
    return rounded if rounded <= seconds + 1e-9 else round(rounded - 10**-DIGITS, DIGITS)


def _times(segment: Segment, seconds: float) -> str:
    """Why the times of a segment are none of a recording of so many seconds; empty if they are."""
    start, stop = segment.start, segment.stop
    if start < 0:
        return f"starts at {start:g} s; expected a time from 0"
    if stop < start:
        return f"stops at {stop:g} s, before its start at {start:g} s"
    if stop == start:
        return f"is empty: it starts and stops at {start:g} s"
    if start >= seconds or stop > seconds + SLACK_SECONDS:
        return f"is from {start:g} to {stop:g} s, but {segment.recording} lasts {seconds:.3f} s"
    return ""


class _Names:
    """Recordings by every name that an annotation may give them."""

    def __init__(self, paths: Sequence[str]) -> None:
        self._paths: dict[str, list[str]] = defaultdict(list)
        self._stems = sorted({PurePosixPath(path).stem for path in paths})
        for path in paths:
            for name in dict.fromkeys(_names(path)):
                self._paths[name].append(path)

    def paths(self, name: str) -> list[str]:
        """Recordings that a name may mean; the longest part of it that is known decides."""
        parts = PurePosixPath(_plain(name)).parts
        for first in range(len(parts)):
            if found := self._paths.get("/".join(parts[first:])):
                return found
        return []

    def reason(self, name: str, found: Sequence[str]) -> str:
        """Why a name means no recording, or several."""
        if found:
            return f"{name} may be {', '.join(found[:SHOWN])}; expected a name that only one has"
        shown = ", ".join(self._stems[:SHOWN]) + (" ..." if self._stems[SHOWN:] else "")
        return f"no recording is named {name}; there are {shown}"


def _names(path: str) -> Iterator[str]:
    """The path and its ends at each folder, with and without the suffix."""
    parts = PurePosixPath(_plain(path)).parts
    for first in range(len(parts)):
        part = PurePosixPath(*parts[first:])
        yield str(part)
        yield str(part.with_suffix(""))


def _plain(name: str) -> str:
    """A name with forward slashes and composed characters."""
    return unicodedata.normalize("NFC", name.replace("\\", "/"))
