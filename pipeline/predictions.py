"""`reports/predictions.csv` and `reports/predictions.parquet`: all rows that a report rests on.

Both hold the same rows, those of all seeds and folds: id, speaker, dialogue, split (valid or
test), fold, seed, label, prediction, and p_<class>. The CSV file is the runs' own text; Parquet
has types (fold int32, seed int64, p_<class> float64, the rest text; a row without a dialogue is
null there).
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from features.files import replacing
from pipeline.runs import PREDICTIONS
from pipeline.tables import AGAIN, RunError, Table, write_csv


def write_predictions(folder: Path, tables: Sequence[Table]) -> None:
    """Write both files into `folder`; equal tables give equal bytes.

    Args:
        folder: Exists.
        tables: predictions.csv of every job, with the same columns.
    """
    rows = [row for table in tables for row in table.rows]
    header = tables[0].header
    write_csv(folder / "predictions.csv", header, rows)
    columns = list(zip(*rows, strict=True))
    arrays = [
        pa.array(_parsed(name, cells), _type(name))
        for name, cells in zip(header, columns, strict=True)
    ]
    with replacing(folder / "predictions.parquet") as temporary:
        pq.write_table(pa.table(arrays, names=list(header)), temporary, compression="zstd")
        temporary.chmod(0o644)


def read_predictions(path: Path) -> pa.Table:
    """Read either file as an Arrow table of the same types; `.to_pydict()` gives plain lists.

    Args:
        path: Ends in .csv or .parquet.

    Raises:
        RunError: If it cannot be read, or has other columns.
    """
    try:
        found = pq.read_table(path) if path.suffix == ".parquet" else _read_csv(path)
    except (OSError, ValueError) as error:  # Arrow's own errors are one or the other
        raise RunError(f"cannot read {path} ({error}): run `dvc repro`") from error
    names = found.column_names
    shares = [name for name in names[len(PREDICTIONS) :] if name.startswith("p_")]
    if names != [*PREDICTIONS, *shares] or len(shares) < 2:
        raise RunError(
            f"{path}: columns {names}; expected {list(PREDICTIONS)}, then p_<class>: {AGAIN}"
        )
    return found


def _read_csv(path: Path) -> pa.Table:
    with path.open(encoding="utf-8", newline="") as file:
        names = next(csv.reader(file), [])
    found = pa_csv.read_csv(
        path,
        parse_options=pa_csv.ParseOptions(newlines_in_values=True),
        convert_options=pa_csv.ConvertOptions(
            column_types={name: _type(name) for name in names}, strings_can_be_null=False
        ),
    )
    if "dialogue" in names:
        at = names.index("dialogue")
        cells = _parsed("dialogue", found.column(at).to_pylist())
        found = found.set_column(at, "dialogue", pa.array(cells, pa.string()))
    return found


def _type(name: str) -> pa.DataType:
    if name in PREDICTIONS:
        return {"fold": pa.int32(), "seed": pa.int64()}.get(name, pa.string())
    return pa.float64()


def _parsed(name: str, cells: Sequence[str]) -> list[str | int | float | None]:
    if name in ("fold", "seed"):
        return [int(cell) for cell in cells]
    if name == "dialogue":
        return [cell or None for cell in cells]
    return list(cells) if name in PREDICTIONS else [float(cell) for cell in cells]
