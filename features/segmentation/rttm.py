"""Reads RTTM, the Rich Transcription Time Marked files of NIST that diarisation systems write.

Lines `SPEAKER <recording> <channel> <start> <duration> <NA> <NA> <speaker> <NA> <NA>`, in seconds,
separated by white space; `;;` begins a comment. Lines of the other types of the standard
(RT-09 evaluation plan, appendix A) hold no turns of speakers and are skipped.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from features.arguments import quoted
from features.errors import ManifestError
from features.files.reading import read_regular
from features.segmentation.segments import Fault, Segment, name, time

SUFFIXES = (".rttm",)
LEAST_FIELDS = 8  # up to the speaker
OTHERS = frozenset(
    ("SEGMENT", "NOSCORE", "NO_RT_METADATA", "LEXEME", "NON-LEX", "NON-SPEECH", "FILLER", "EDIT",
     "IP", "SU", "CB", "A/P", "SPKR-INFO")
)  # fmt: skip


def read_rttm(path: Path) -> Iterator[Segment | Fault]:
    """The turns of an RTTM file, and lines that are none."""
    content = read_regular(path).removeprefix(b"\xef\xbb\xbf")
    for number, line in enumerate(content.split(b"\n"), 1):
        place = f"{path}, line {number}"
        try:
            segment = _segment(line.decode(), place)
        except UnicodeDecodeError as error:
            yield Fault(place, f"is not UTF-8 text ({error.reason}): save the file as UTF-8")
        except ManifestError as error:
            yield Fault(place, str(error))
        else:
            if segment is not None:
                yield segment


def _segment(line: str, place: str) -> Segment | None:
    fields = line.split()
    if not fields or fields[0].startswith(";") or fields[0] in OTHERS:
        return None
    if fields[0] != "SPEAKER":
        raise ManifestError(f"begins with {quoted(fields[0])}; expected SPEAKER")
    if len(fields) < LEAST_FIELDS:
        raise ManifestError(
            f"{len(fields)} fields; expected at least {LEAST_FIELDS}: SPEAKER recording channel "
            "start duration <NA> <NA> speaker"
        )
    start = time("start", fields[3])
    return Segment(
        recording=fields[1],
        start=start,
        stop=start + time("duration", fields[4]),
        speaker=name(fields[7]),
        place=place,
    )
