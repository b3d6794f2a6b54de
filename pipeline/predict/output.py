"""Writes the rows of a result: CSV, JSON Lines, Parquet, and a table for a terminal.

In CSV numbers have nine significant digits, lists are joined by spaces (notices by semicolons), and
what is unknown is empty; text that a spreadsheet would compute is guarded
(`features.files.csv_text`). JSON Lines and Parquet hold numbers in full, lists, and null.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

from features.errors import ParamsError
from features.files.csv_text import write_sheet
from features.files.writing import make_folder, replacing
from features.process.terminal import aligned
from pipeline.model.outputs import GENDERS
from pipeline.predict.records import LISTS, TEXTS, Columns, Record

SHOWN = 200  # rows of the table for a terminal
GROUP_ROWS = 4096  # of Parquet
SUFFIXES = {  # of each option's format; any other suffix says nothing about the format
    "--csv": (".csv",),
    "--jsonl": (".jsonl", ".ndjson", ".json"),
    "--parquet": (".parquet", ".pq"),
}


def check_writable(path: Path, option: str) -> None:
    """Refuse a file that cannot be written, or is named as another format, before hours of work.

    Raises:
        ParamsError: Naming the option.
    """
    others = {each: of for of, suffixes in SUFFIXES.items() for each in suffixes if of != option}
    other = others.get(path.suffix.lower())
    if other is not None:
        raise ParamsError(
            f"{option} {path}: its name is that of another format; expected "
            f"{path.with_suffix(SUFFIXES[option][0])}, or {other} {path}"
        )
    try:
        if path.is_dir():
            raise IsADirectoryError(0, "it is a folder")
        make_folder(path.parent)
        with tempfile.TemporaryFile(dir=path.parent):
            pass
    except OSError as error:
        raise ParamsError(
            f"{option} {path}: cannot write it ({error.strerror}); expected the path of a file "
            "that may be written"
        ) from error


def write_csv(path: Path, columns: Columns, rows: Iterable[Record]) -> None:
    """Write the rows as CSV."""
    names = columns.names
    with replacing(path) as temporary:
        write_sheet(temporary, names, ([_cell(n, row[n]) for n in names] for row in rows))


def write_jsonl(path: Path, columns: Columns, rows: Iterable[Record]) -> None:
    """Write the rows as JSON, one a line."""
    names = columns.names
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for row in rows:
            line = {name: row[name] for name in names}
            file.write(json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n")


def write_parquet(path: Path, columns: Columns, rows: Iterable[Record]) -> None:
    """Write the rows as Parquet: text, float64, int64 (`turn`) and lists."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    def kind(name: str) -> Any:
        if name in LISTS:
            return pa.list_(pa.float64() if name == "temperatures" else pa.string())
        if name == "turn":
            return pa.int64()
        # A class may be called `without_text`: what is text is known by its place.
        texts = {*TEXTS, *(columns.without(s)[0] for s in columns.slots if columns.outputs.classes)}
        return pa.string() if name in texts else pa.float64()

    schema = pa.schema([(name, kind(name)) for name in columns.names])
    remaining = iter(rows)
    with (
        replacing(path) as temporary,
        pq.ParquetWriter(temporary, schema, compression="zstd") as writer,
    ):
        while some := list(islice(remaining, GROUP_ROWS)):
            writer.write_table(pa.Table.from_pylist(some, schema=schema))


def _cell(name: str, value: Any) -> object:
    if value is None:
        return ""
    if isinstance(value, list):
        joint = "; " if name == "notices" else " "
        return joint.join(str(_cell(name, each)) for each in value)
    return f"{value:.9g}" if isinstance(value, float) else value


def table(columns: Columns, rows: Iterable[Record], *, without_each: bool) -> Iterator[str]:
    """Lines of a table with the first `SHOWN` rows."""
    remaining = iter(rows)
    shown = list(islice(remaining, SHOWN))
    makers = list(_makers(columns, shown, without_each=without_each))
    lines = [[title for title, _ in makers]]
    lines += [[make(row) for _, make in makers] for row in shown]
    yield from aligned(lines)
    more = sum(1 for _ in remaining)
    if more:
        yield f"rows that are not shown: {more} (--csv, --jsonl or --parquet write all)"


Maker = Callable[[Record], str]


def _makers(
    columns: Columns, shown: list[Record], *, without_each: bool
) -> Iterator[tuple[str, Maker]]:
    """Title and cells of each column of the table."""
    yield "id", lambda row: str(row["id"])
    if any(row["start"] or _is_piece(row) for row in shown):
        yield "from", lambda row: _number(row["start"], 1)
        yield "to", lambda row: _number(row["stop"], 1)
    if any(row["speaker"] for row in shown):
        yield "speaker", lambda row: row["speaker"] or ""
    yield from _answer(columns, "", "")
    of = columns.outputs
    if of.genders:
        yield "gender", lambda row: _likeliest(row, "g_", GENDERS)
    for slot in columns.slots if without_each else ():
        yield from _answer(columns, f"without_{slot}", f" without {slot}")
    if any(row["missing"] or row["error"] for row in shown):
        yield "", _note


def _answer(columns: Columns, name: str, suffix: str) -> Iterator[tuple[str, Maker]]:
    of, stem = columns.outputs, f"{name}_" if name else ""
    if of.classes:
        yield f"class{suffix}", lambda row: row[name or "prediction"] or ""
        yield (
            "p",
            lambda row: _number(row.get(f"{stem}p_{row[name or 'prediction']}"), 2),
        )
    for each in of.attributes:
        yield f"{each}{suffix}", lambda row, each=each: _number(row[f"{stem}v_{each}"], 2)  # type: ignore[misc]


def _is_piece(row: Record) -> bool:
    return "#" in row["id"]


def _likeliest(row: Record, prefix: str, names: Iterable[str]) -> str:
    held = {name: row[f"{prefix}{name}"] for name in names if row[f"{prefix}{name}"] is not None}
    return max(held, key=lambda name: held[name]) if held else ""


def _number(value: float | None, digits: int) -> str:
    return "" if value is None else f"{value:.{digits}f}"


def _note(row: Record) -> str:
    if row["error"]:
        return f"failed: {row['error']}"
    return f"without {', '.join(row['missing'])}" if row["missing"] else ""
