"""Writes and reads `reports/predictions.csv` and `reports/predictions.parquet`.

Both hold the same rows, those of all seeds and folds: id, speaker, dialogue, split (valid or
test), fold, seed, label, prediction, and p_<class>, with what `pipeline.runs.layout` names for
other targets than classes. The CSV file is the runs' own text, with an apostrophe before what a
spreadsheet would compute (`features.files.csv_text`). Parquet has types (fold int32, seed int64,
p_<class> and the like float64, the rest text; what is unknown, a dialogue, a class, votes or an
attribute, is null there), and its schema's metadata names the run
(`pipeline.evaluation.identity`).
"""

from __future__ import annotations

import csv
import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

from features.errors import RunError
from features.files.csv_text import unguarded, write_sheet
from features.files.reading import file_sha256, open_text
from features.files.writing import replacing
from pipeline.evaluation.identity import RunIdentity
from pipeline.runs.layout import PREDICTIONS
from pipeline.runs.tables import AGAIN, Table

_PREFIXES = "p_t_y_v_g_m_"
"""How columns after `PREDICTIONS` begin, in their order."""
_VALUES = _PREFIXES.index("v_")
CSV, PARQUET = "predictions.csv", "predictions.parquet"


def write_csv_predictions(folder: Path, tables: Sequence[Table]) -> str:
    """Write predictions.csv into `folder`; returns its SHA-256.

    Args:
        folder: Existing folder.
        tables: predictions.csv of every job, with the same columns.
    """
    write_sheet(folder / CSV, tables[0].header, itertools.chain.from_iterable(tables))
    return file_sha256(folder / CSV)


def write_parquet_predictions(
    folder: Path, tables: Sequence[Table], identity: Mapping[str, str]
) -> None:
    """Write predictions.parquet into `folder`; equal arguments give equal bytes.

    Args:
        folder: Existing folder.
        tables: As for `write_csv_predictions`.
        identity: Keys and values of `RunIdentity`, for the metadata.
    """
    header = tables[0].header
    # Table by table, since the values of a column as objects take several times as much.
    arrays = [
        pa.concat_arrays(pa.array(_parsed(name, each.column(name)), _type(name)) for each in tables)
        for name in header
    ]
    table = pa.table(arrays, names=list(header)).replace_schema_metadata(dict(identity))
    with replacing(folder / PARQUET) as temporary:
        pq.write_table(table, temporary, compression="zstd")


def read_predictions(path: Path) -> pa.Table:
    """Read either file as an Arrow table of the same types; `.to_pydict()` gives plain lists.

    Args:
        path: File whose name ends in .csv or .parquet.

    Raises:
        RunError: If it cannot be read, or has other columns.
    """
    try:
        found = pq.read_table(path) if path.suffix == ".parquet" else _read_csv(path)
    except (OSError, ValueError) as error:  # Arrow's own errors are one or the other
        raise RunError(f"cannot read {path} ({error}): run `dvc repro`") from error
    names = found.column_names
    more = names[len(PREDICTIONS) :]
    order = [_PREFIXES.find(name[:2]) for name in more]
    right = names[: len(PREDICTIONS)] == list(PREDICTIONS) and order == sorted(order)
    if not right or -1 in order or order.count(0) == 1 or not {0, _VALUES} & set(order):
        raise RunError(
            f"{path}: columns {names}; expected {list(PREDICTIONS)}, then p_<class>, then those "
            f"of other targets: {AGAIN}"
        )
    return found


def named_in(path: Path) -> RunIdentity | None:
    """The run that a Parquet file names; None if it names none."""
    metadata = pq.read_schema(path).metadata or {}
    return RunIdentity.read({key.decode(): value.decode() for key, value in metadata.items()})


def _read_csv(path: Path) -> pa.Table:
    with open_text(path) as file:
        names = next(csv.reader(file), [])
    found = pa_csv.read_csv(
        path,
        parse_options=pa_csv.ParseOptions(newlines_in_values=True),  # ids may hold them
        # a speaker may be called "NA", so that no text is null
        convert_options=pa_csv.ConvertOptions(
            column_types={name: _type(name) for name in names}, strings_can_be_null=False
        ),
    )
    for at, name in enumerate(names):
        if name in PREDICTIONS and _type(name) == pa.string():
            cells = _parsed(name, [unguarded(cell) for cell in found.column(at).to_pylist()])
            found = found.set_column(at, name, pa.array(cells, pa.string()))
    return found


def _type(name: str) -> pa.DataType:
    if name in PREDICTIONS:
        return {"fold": pa.int32(), "seed": pa.int64()}.get(name, pa.string())
    return pa.float64()


def _parsed(name: str, cells: Sequence[str]) -> list[str | int | float | None]:
    if name in ("fold", "seed"):
        return [int(cell) for cell in cells]
    if name in ("dialogue", "label", "prediction"):
        return [cell or None for cell in cells]
    if name in PREDICTIONS:
        return list(cells)
    return [float(cell) if cell else None for cell in cells]
