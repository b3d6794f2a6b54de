"""Reads segments from a table: CSV, or tab-separated where the file is named .tsv.

Columns, by any of these names: `audio`, `recording` or `file`; `start` or `begin`; `stop` or `end`,
or `duration`. Optional: `speaker`, `text`, `label`. Others are left alone.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from features.errors import ManifestError
from features.files.reading import read_regular
from features.segmentation.segments import Fault, Segment, name, time, words

SUFFIXES = (".csv", ".tsv")
NAMES = {
    "recording": ("audio", "recording", "file"),
    "start": ("start", "begin"),
    "stop": ("stop", "end"),
    "duration": ("duration",),
    "speaker": ("speaker",),
    "text": ("text",),
    "label": ("label",),
}


def read_table(path: Path) -> Iterator[Segment | Fault]:
    """The segments of a table, and rows that are none.

    Raises:
        ManifestError: If it is no UTF-8 text, or lacks a column.
    """
    try:
        text = read_regular(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ManifestError(f"is not UTF-8 text ({error.reason}): save it so") from error
    separator = "\t" if path.suffix.lower() == ".tsv" else ","
    # csv itself has to see the line ends, since cells may hold some.
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, strict=True)
    try:
        header = [column.strip().lower() for column in next(rows, [])]
        columns = _columns(header)
        for cells in rows:
            place = f"{path}, line {rows.line_num}"
            if len(cells) == len(header):
                try:
                    yield _segment({ours: cells[at] for ours, at in columns.items()}, place)
                except ManifestError as error:
                    yield Fault(place, str(error))
            elif cells:
                yield Fault(place, f"{len(cells)} cells; expected {len(header)} as in the header")
    except csv.Error as error:
        yield Fault(f"{path}, line {rows.line_num}", f"is not CSV ({error}): the rest was not read")


def _columns(header: Sequence[str]) -> dict[str, int]:
    """Position of each of our columns."""
    found = {}
    for ours, names in NAMES.items():
        at = [number for number, column in enumerate(header) if column in names]
        if len(at) > 1:
            raise ManifestError(f"has the columns {[header[n] for n in at]}; expected one of them")
        if at:
            found[ours] = at[0]
    lacking = [" or ".join(NAMES[ours]) for ours in ("recording", "start") if ours not in found]
    if "stop" not in found and "duration" not in found:
        lacking.append("stop, end or duration")
    if lacking:
        raise ManifestError(
            f"has the columns {list(header)}, and none of {'; '.join(lacking)}; expected a header "
            "with them, separated by commas, or by tabs in a file named .tsv"
        )
    return found


def _segment(cells: Mapping[str, str], place: str) -> Segment:
    start = time("start", cells["start"].strip())
    stop = cells.get("stop", "").strip()
    if stop or "duration" not in cells:
        end = time("stop", stop)
    else:
        end = start + time("duration", cells["duration"].strip())
    recording = cells["recording"].strip()
    if not recording:
        raise ManifestError("names no recording; expected one")
    return Segment(
        recording=recording,
        start=start,
        stop=end,
        speaker=name(cells.get("speaker", "")),
        text=words(cells.get("text")),
        label=words(cells.get("label")),
        place=place,
    )
