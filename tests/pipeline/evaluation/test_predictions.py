"""The published predictions: one table in two formats."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from features.errors import RunError
from pipeline.evaluation.identity import RunIdentity
from pipeline.evaluation.predictions import (
    named_in,
    read_predictions,
    write_csv_predictions,
    write_parquet_predictions,
)
from pipeline.evaluation.run_folder import RunFolder
from pipeline.runs.layout import PREDICTIONS
from pipeline.runs.tables import Table
from tests.support.runs.fake_run import CLASSES, FakeRun


def small(**changes: str) -> Table:
    """Two rows; `changes` are to the first one."""
    first = dict(zip(PREDICTIONS, ("a", "s1", "", "valid", "0", "7", "x", "y"), strict=True))
    first |= {"p_x": "0.25", "p_y": "0.75"} | changes
    second = ("b", "s2", "d1", "test", "1", "-3", "y", "y", "1e-30", "1")
    return Table.of(Path("p.csv"), tuple(first), [(tuple(first.values()), 2), (second, 3)])


IDENTITY = RunIdentity("cached", "mine", "spectral", "ab", "cd")


def write_predictions(folder: Path, tables: list[Table]) -> None:
    write_csv_predictions(folder, tables)
    write_parquet_predictions(folder, tables, IDENTITY.to_dict())


def test_both_files_hold_the_same_typed_rows(tmp_path: Path) -> None:
    run = RunFolder.read(FakeRun(tmp_path, folds=3).write().run)
    write_predictions(tmp_path, [job.table for job in run.jobs])
    text = read_predictions(tmp_path / "predictions.csv")
    binary = read_predictions(tmp_path / "predictions.parquet")
    assert text.equals(binary)
    assert named_in(tmp_path / "predictions.parquet") == IDENTITY
    assert text.num_rows == sum(len(job.table) for job in run.jobs)
    types = {name: pa.string() for name in PREDICTIONS} | {"fold": pa.int32(), "seed": pa.int64()}
    types |= {f"p_{name}": pa.float64() for name in CLASSES}
    assert dict(zip(binary.schema.names, binary.schema.types, strict=True)) == types


def test_equal_rows_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        write_predictions(tmp_path / name, [small(), small()])
    for file in ("predictions.csv", "predictions.parquet"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_odd_names_survive_and_only_a_missing_dialogue_is_null(tmp_path: Path) -> None:
    odd = {"id": 'a,"b"\nc', "speaker": "NA", "label": "null", "prediction": "怒"}
    write_predictions(tmp_path, [small(**odd)])
    for file in ("predictions.csv", "predictions.parquet"):
        found = read_predictions(tmp_path / file).to_pylist()
        assert {name: found[0][name] for name in odd} == odd
        assert [row["dialogue"] for row in found] == [None, "d1"]
        assert [row["seed"] for row in found] == [7, -3]
        assert found[1]["p_x"] == 1e-30


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.csv", None, "cannot read .*a.csv"),
        ("a.parquet", None, "cannot read .*a.parquet"),
        ("a.parquet", "id,speaker", "cannot read .*a.parquet"),
        ("a.csv", "", "cannot read .*a.csv"),
        ("a.csv", "id,label\n1,x\n", "a.csv: columns .*expected .*then p_<class>"),
        ("a.csv", ",".join([*PREDICTIONS, "p_x", "p_y"]) + "\na\n", "cannot read .*a.csv"),
    ],
)
def test_what_is_no_such_table_is_refused(
    tmp_path: Path, name: str, content: str | None, complaint: str
) -> None:
    if content is not None:
        (tmp_path / name).write_text(content, encoding="utf-8")
    with pytest.raises(RunError, match=complaint):
        read_predictions(tmp_path / name)
