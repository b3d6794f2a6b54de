"""Read tables of utterances in CSV and JSON Lines, and the CSV tables of published corpora."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from features.corpora._tables.cells import is_missing
from features.corpora._tables.rows import (
    CLASSES_ALONE,
    COLUMNS,
    Beyond,
    Reading,
    Row,
    choose_columns,
    lacking_columns,
    repeated,
    split_of,
    with_split,
)
from features.corpus.adapter import Source
from features.errors import ManifestError
from features.files.json_text import Decoder
from features.files.reading import open_text, read_regular
from features.files.root_paths import RootPaths

LFS_BEGIN = "version https://git-lfs"  # of a file that git-lfs has not fetched
_UTF_16 = (b"\xff\xfe", b"\xfe\xff")


@dataclass(frozen=True)
class TextTable:
    """A CSV or JSON Lines file of utterances.

    Attributes:
        path: The file.
        name: Name in messages; empty where the corpus is this one file.
        folder: Folder below the root to which the paths in an audiofolder's `metadata` file are
            relative; None for a table of our own, which must have no other columns than ours.
        split: Split of rows that name none.
    """

    path: Path
    name: str = ""
    folder: str | None = None
    split: str | None = None

    def read(self, columns: Mapping[str, str] | None, beyond: Beyond = CLASSES_ALONE) -> Reading:
        """Read all rows.

        Args:
            columns: Our column names to the table's.
            beyond: Columns that it may have beside ours.

        Raises:
            ManifestError: If it is not UTF-8.
        """
        where = f"{self.name} " if self.name else ""
        reading = Reading()
        found: list[tuple[int, dict[str, Any]]] = []
        for number, row in numbered_rows(self.path):
            if isinstance(row, str):
                reading.faults.append(f"{where}line {number}: {row}")
            else:
                found.append((number, row))
        names = list(dict.fromkeys(name for _, row in found for name in row))
        chosen, faults = choose_columns(columns, names, beyond)
        expected = [*COLUMNS, *beyond.names]
        unknown = sorted(name for name in set(names) - set(COLUMNS) if not beyond.holds(name))
        if beyond.unlabelled:
            reading.ignored = unknown
        elif columns is None and self.folder is None and unknown:
            remedy = (
                "name those in use by `columns`, or ask for what they hold by `targets` and "
                "`attributes`"
            )
            faults = [f"unknown columns {unknown}; expected some of {expected}: {remedy}", *faults]
        if found:
            lacking = lacking_columns(chosen, names, beyond)
            reading.faults = [where + fault for fault in faults] + reading.faults
            reading.faults += [where + fault for fault in lacking]
            if not lacking:
                found.reverse()
                while found:  # so that not all rows are there twice
                    number, row = found.pop()
                    reading.rows.append(Row(f"{where}line {number}", self._cells(row, chosen)))
        return reading

    def _cells(self, row: Mapping[str, Any], chosen: Mapping[str, str]) -> dict[str, Any]:
        cells = {ours: row.get(theirs) for ours, theirs in chosen.items()}
        if self.folder is None:
            return with_split(cells, self.split)
        audio = cells.get("audio")
        # An absolute path stays absolute, to be refused with the other paths that leave the root.
        if isinstance(audio, str) and not is_missing(audio):
            cells["audio"] = audio = str(PurePosixPath(self.folder, audio.strip()))
        folder = str(PurePosixPath(str(audio or "")).parent)
        return with_split(cells, self.split or split_of(folder))


def published_rows(
    path: Path,
    columns: Sequence[str],
    source: Source,
    *,
    decode: Callable[[bytes], str] = lambda content: content.decode("utf-8-sig"),
    skip_spaces: bool = False,
) -> Iterator[tuple[str, dict[str, str]]]:
    """Read columns of a CSV table of a published corpus.

    Args:
        path: The table.
        columns: Required columns, with `_` for the spaces in their names.
        source: Description of the corpus; messages say how to obtain it.
        decode: Decoder of the file.
        skip_spaces: Whether to ignore spaces after a comma.

    Yields:
        The place of a row for messages, and its cells by column; cells missing at the end of a
        line are empty.

    Raises:
        ManifestError: If it cannot be read or lacks a column.
    """
    # csv itself has to see the line ends, since cells may hold some.
    file = io.StringIO(_published_text(path, source, decode), newline="")
    reader = csv.DictReader(file, restval="", skipinitialspace=skip_spaces)
    try:
        names = {_column(name): name for name in reader.fieldnames or ()}
        lacking = [name for name in columns if name not in names]
        if lacking:
            held = list(names.values())
            raise ManifestError(
                f"{path} has the columns {str(held)[:500]}, not {lacking}; expected the table as "
                f"published{separator(held)}. {source.obtain}"
            )
        for row in reader:
            yield f"{path}, line {reader.line_num}", {name: row[names[name]] for name in columns}
    except csv.Error as error:
        raise ManifestError(f"{path}, line {reader.reader.line_num}: not CSV ({error})") from error


def published_header(path: Path, source: Source) -> list[str]:
    """Names of the columns of a CSV table of a published corpus, as `published_rows` takes them.

    Raises:
        ManifestError: If it cannot be read.
    """
    text = _published_text(path, source, lambda content: content.decode("utf-8-sig"))
    try:
        return [_column(name) for name in next(csv.reader(io.StringIO(text, newline="")), [])]
    except csv.Error as error:
        raise ManifestError(f"{path}, line 1: not CSV ({error})") from error


def _column(name: str) -> str:
    return re.sub(r"\s+", "_", name.strip())


def _published_text(path: Path, source: Source, decode: Callable[[bytes], str]) -> str:
    try:
        text = decode(read_regular(path))
    except (OSError, UnicodeDecodeError) as error:
        absent = isinstance(error, FileNotFoundError)
        hint = RootPaths(path.parent).hint(path.name) if absent else ""
        raise ManifestError(
            f"cannot read {path} ({error}){hint}; expected the table as published: {source.obtain}"
        ) from error
    refuse_pointer(path, text)
    return text


def refuse_pointer(path: Path, text: str) -> None:
    """Raise `ManifestError` if a table begins like a file that git-lfs has not fetched."""
    if text.startswith(LFS_BEGIN):
        raise ManifestError(
            f"{path} is a git-LFS pointer, not a table: run `git lfs pull` where it came from"
        )


def separator(header: Sequence[str]) -> str:
    """Hint for a message where the header of a CSV table has another separator than commas."""
    for sign, name in ((";", "semicolons (;)"), ("\t", "tabs"), ("|", "bars (|)")):
        if len(header) == 1 and sign in header[0]:
            return f": its cells are separated by {name}; expected commas: save it so"
    return ""


def numbered_rows(path: Path) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Number and cells of each line of a CSV, TSV or JSON Lines file, or its fault.

    Raises:
        ManifestError: If it is not UTF-8.
    """
    try:
        with open_text(path, encoding="utf-8-sig") as file:
            if path.suffix == ".jsonl":
                yield from _jsonl(file)
            else:
                yield from _csv(file, "\t" if path.suffix == ".tsv" else ",")
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


def _csv(file: Any, delimiter: str) -> Iterator[tuple[int, dict[str, Any] | str]]:
    reader = csv.reader(file, strict=True, delimiter=delimiter)
    try:
        header = [name.strip() for name in next(reader, [])]
        if separator(header):
            yield 1, f"one column {header[0]!r}{separator(header)}; the rest was not read"
            return
        twice = repeated(header)
        if twice:
            yield 1, f"columns {twice} occur twice in the header; expected each once"
        for cells in reader:
            if len(cells) == len(header):
                yield reader.line_num, dict(zip(header, cells, strict=True))
            elif cells:
                fault = f"{len(cells)} cells; expected {len(header)} as in the header"
                yield reader.line_num, fault
    except csv.Error as error:
        # The field size limit is reached where a quotation mark is never closed.
        remedy = ": is a quotation mark left open?" if "limit" in str(error) else ""
        yield reader.line_num, f"not CSV ({error}); the rest was not read{remedy}"


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


class _Object(dict[str, Any]):
    """A JSON object that records repeated names, of which a dict keeps only the last value."""

    def __init__(self, pairs: Sequence[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.twice = repeated([name for name, _ in pairs])
