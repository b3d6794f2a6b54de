"""Tables of utterances in text, and what all tables share: column names, splits, relative paths.

A table is read to rows under our own column names. What is wrong with it is listed, not raised, so
that all problems of a corpus are told at once.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from features.corpora._tables.cells import is_missing
from features.errors import ManifestError
from features.files.json_text import Decoder
from features.files.reading import open_text, read_regular

COLUMNS = (
    "id", "audio", "text", "start", "stop", "label", "speaker", "dialogue", "turn", "gender",
    "sentence", "split", "asr",
)  # fmt: skip
FILE_NAME = "file_name"  # what an audiofolder calls its column of paths
DECODED = (
    "samples of decoded audio, not a file; expected the file's bytes or path: cast the column by "
    "`dataset.cast_column('audio', Audio(decode=False))` and save it again, or write WAV files"
)
LISTED = 20  # problems that a message quotes
LONGEST = 600  # characters of one of them
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")
# What others call the splits; our names are the values.
SPLIT_NAMES = {
    name: split
    for split, names in (
        ("train", "train training"),
        ("valid", "valid validation val dev development"),
        ("test", "test testing eval evaluation"),
    )
    for name in names.split()
}


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        place: What messages call it, such as `line 3`.
        cells: By our own column names.
    """

    place: str
    cells: dict[str, Any]


@dataclass
class Reading:
    """What was read of a table, and what is wrong with it, one line each.

    Attributes:
        rows: Those that could be read.
        faults: Problems; a corpus with any is refused.
        embedded: The table's name of the column that holds audio files themselves, if one does.
        numbered: Whether a row may be known by its number: for tables that people do not edit.
    """

    rows: list[Row] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    embedded: str | None = None
    numbered: bool = False


@dataclass(frozen=True)
class TextTable:
    """A CSV or JSON Lines file.

    Attributes:
        path: The file.
        name: What messages call it; empty where the corpus is this one file.
        folder: Folder below the root that paths of an audiofolder's `metadata` file count from;
            None for a table of our own, which must have no other columns than ours.
        split: Of rows that name none.
    """

    path: Path
    name: str = ""
    folder: str | None = None
    split: str | None = None

    def read(self, columns: Mapping[str, str] | None) -> Reading:
        """All rows.

        Args:
            columns: Our column names to the table's.

        Raises:
            ManifestError: If it is not UTF-8.
        """
        where = f"{self.name} " if self.name else ""
        reading = Reading()
        found: list[tuple[int, dict[str, Any]]] = []
        for number, row in _lines(self.path):
            if isinstance(row, str):
                reading.faults.append(f"{where}line {number}: {row}")
            else:
                found.append((number, row))
        names = list(dict.fromkeys(name for _, row in found for name in row))
        chosen, faults = choose_columns(columns, names)
        if columns is None and self.folder is None:
            faults = [*_unknown(names), *faults]
        if found:
            lacking = lacking_columns(chosen, names)
            reading.faults = [where + fault for fault in faults] + reading.faults
            reading.faults += [where + fault for fault in lacking]
            if not lacking:
                reading.rows = [
                    Row(f"{where}line {number}", self._cells(row, chosen)) for number, row in found
                ]
        return reading

    def _cells(self, row: Mapping[str, Any], chosen: Mapping[str, str]) -> dict[str, Any]:
        cells = {ours: row.get(theirs) for ours, theirs in chosen.items()}
        if self.folder is None:
            return with_split(cells, self.split)
        audio = cells.get("audio")
        # One that begins with / stays so, to be refused with the other paths that leave the root.
        if isinstance(audio, str) and not is_missing(audio):
            cells["audio"] = audio = str(PurePosixPath(self.folder, audio.strip()))
        folder = str(PurePosixPath(str(audio or "")).parent)
        return with_split(cells, self.split or split_of(folder))


def choose_columns(
    columns: Mapping[str, str] | None, names: Sequence[str]
) -> tuple[dict[str, str], list[str]]:
    """Which of a table's columns are which of ours, and what is wrong with them.

    Args:
        columns: Our names to the table's; an empty one says that the table has none of it. What is
            not named here goes by our own name, unless its column is named for something else.
        names: The table's.
    """
    given = columns or {}
    twice = _twice(names)
    faults = [f"columns {twice} occur twice; expected each once"] if twice else []
    faults += [
        f"columns.{ours} names {theirs!r}, which is none of its columns {list(names)}"
        for ours, theirs in given.items()
        if theirs and theirs not in names
    ]
    taken = {ours: theirs for ours, theirs in given.items() if theirs in names}
    own = {
        name: name
        for name in COLUMNS
        if name in names and name not in given and name not in taken.values()
    }
    if FILE_NAME in names and "audio" not in own | dict(given):
        own["audio"] = FILE_NAME
    return taken | own, faults


def lacking_columns(chosen: Mapping[str, str], names: Sequence[str]) -> list[str]:
    """At most one problem: that the table lacks columns without which there is no corpus."""
    lacking = [name for name in ("label", "speaker") if name not in chosen]
    if not chosen.keys() & {"audio", "text"}:
        lacking.append("audio or text")
    if not lacking:
        return []
    return [
        f"it has no column {', nor '.join(lacking)}, but {list(names)}: add it, or map it by "
        "`columns`"
    ]


def with_split(cells: dict[str, Any], split: str | None) -> dict[str, Any]:
    """Cells with the split of their file, unless they name one themselves."""
    return cells | {"split": split} if is_missing(cells.get("split")) else cells


def split_of(place: str) -> str | None:
    """The split that a path names, the last of its parts first; None if none or several.

    >>> split_of("data/validation-00000-of-00002.parquet"), split_of("default/dev/0.parquet")
    ('valid', 'valid')
    >>> split_of("latest/contest.parquet") is None
    True
    """
    for part in reversed(PurePosixPath(place).parts):
        words = re.split(r"[^a-z]+", part.lower())
        named = {SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES}
        if len(named) == 1:
            return named.pop()
    return None


def check_relative(path: str) -> None:
    """Raise `ManifestError` for a path that could leave the corpus root."""
    parts, windows = PurePosixPath(path).parts, PureWindowsPath(path)
    if path.startswith("/") or windows.drive or ".." in parts or ".." in windows.parts:
        raise ManifestError(f"path {path!r}; expected a relative one below the corpus root")


def raise_faults(path: Path, faults: Sequence[str]) -> None:
    """Raise `ManifestError` listing the faults of a table, if there are any."""
    if faults:
        more = [f"and {len(faults) - LISTED} more"] if len(faults) > LISTED else []
        listed = "\n  ".join([*map(_cut, faults[:LISTED]), *more])
        raise ManifestError(f"{path}: problems to mend:\n  {listed}")


def _cut(fault: str) -> str:
    """A line without the middle of a long cell that it quotes."""
    if len(fault) <= LONGEST:
        return fault
    return f"{fault[: LONGEST // 2]} ... {fault[-LONGEST // 2 :]}"


def _unknown(names: Sequence[str]) -> list[str]:
    unknown = sorted(set(names) - set(COLUMNS))
    if not unknown:
        return []
    return [f"unknown columns {unknown}; expected some of {list(COLUMNS)}"]


def _lines(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    try:
        with open_text(path, encoding="utf-8-sig") as file:
            yield from _jsonl(file) if path.suffix == ".jsonl" else _csv(file)
    except UnicodeDecodeError as error:
        content = read_regular(path)
        reason = "it begins as UTF-16" if content.startswith(_UTF_16) else error.reason
        raise ManifestError(
            f"{path}, line {_undecodable(content)} is not UTF-8 text ({reason}); save it as UTF-8"
        ) from error


def _undecodable(content: bytes) -> int:
    """Number of the first line that is not UTF-8."""
    for number, line in enumerate(content.split(b"\n"), 1):
        try:
            line.decode()
        except UnicodeDecodeError:
            return number
    return 1


def _csv(file: Any) -> Iterator[tuple[int, dict[str, Any] | str]]:
    reader = csv.reader(file, strict=True)
    try:
        header = [name.strip() for name in next(reader, [])]
        if separator(header):
            yield 1, f"one column {header[0]!r}{separator(header)}; the rest was not read"
            return
        twice = _twice(header)
        if twice:
            yield 1, f"columns {twice} occur twice in the header; expected each once"
        for cells in reader:
            if len(cells) == len(header):
                yield reader.line_num, dict(zip(header, cells, strict=True))
            elif cells:
                fault = f"{len(cells)} cells; expected {len(header)} as in the header"
                yield reader.line_num, fault
    except csv.Error as error:
        remedy = "is a quotation mark left open?" if "limit" in str(error) else ""
        yield reader.line_num, f"not CSV ({error}); the rest was not read{remedy and ': '}{remedy}"


def _jsonl(file: Any) -> Iterator[tuple[int, dict[str, Any] | str]]:
    decoder = Decoder(object_pairs_hook=_Object)
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            row = decoder.decode(line)
        except ValueError as error:
            yield number, f"not JSON ({error}); expected one object a line"
            continue
        if not isinstance(row, _Object):
            yield number, "not a JSON object; expected one a line"
        elif row.twice:
            yield number, f"{row.twice} occur twice in it; expected each once"
        else:
            yield number, row


def separator(header: Sequence[str]) -> str:
    """A hint to append to a message where the header of a CSV table is cut by another sign."""
    for sign, name in ((";", "semicolons (;)"), ("\t", "tabs"), ("|", "bars (|)")):
        if len(header) == 1 and sign in header[0]:
            return f": its cells are separated by {name}; expected commas: save it so"
    return ""


class _Object(dict[str, Any]):
    """A JSON object that knows which of its names occur twice, of which only the last is kept."""

    def __init__(self, pairs: Sequence[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.twice = _twice([name for name, _ in pairs])


def _twice(names: Sequence[str]) -> list[str]:
    return [] if len(set(names)) == len(names) else sorted({n for n in names if names.count(n) > 1})
