"""Tables of run folders are what the files say, in a fraction of the memory of their cells."""

from __future__ import annotations

import csv
import tracemalloc
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.errors import RunError
from features.files.csv_text import write_csv
from pipeline.runs.tables import Packed, read_csv

HEADER = ("id", "label", "p_a", "v_b")
# No text that the file could not hold: a row of empty cells only is still a row of commas.
cell = st.text(st.characters(codec="utf-8", exclude_characters="\r\0"), max_size=6)


@given(rows=st.lists(st.tuples(cell, cell, cell, cell), max_size=12))
def test_a_table_holds_the_rows_of_its_file(rows: list[tuple[str, ...]]) -> None:
    with TemporaryDirectory() as folder:
        path = Path(folder, "a.csv")
        write_csv(path, HEADER, rows)
        table = read_csv(path, HEADER)
        with path.open(encoding="utf-8", newline="") as file:
            reader = csv.reader(file)
            lines = [reader.line_num for _ in reader][1:]
    assert list(table) == rows
    assert len(table) == len(rows)
    assert list(table.lines) == lines
    for place, name in enumerate(HEADER):
        assert list(table.column(name)) == [row[place] for row in rows]
    some = [*range(0, len(rows), 2)]
    assert list(table.only_rows(some)) == [rows[row] for row in some]


@given(cells=st.lists(cell), more=st.lists(cell))
def test_packed_texts_are_a_sequence(cells: list[str], more: list[str]) -> None:
    packed = Packed(cells)
    packed.extend(more)
    whole = cells + more
    assert list(packed) == whole
    assert [packed[place] for place in range(-len(whole), len(whole))] == whole * 2
    assert packed[1::2] == whole[1::2]
    with pytest.raises(IndexError):
        packed[len(whole)]


def test_a_ragged_row_is_named_by_its_line(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text('id,label\n"a\nb",x\nc,y,z\nd\n')
    with pytest.raises(RunError, match=r"a\.csv, line 4: 3 cells; expected 2"):
        read_csv(tmp_path / "a.csv", ("id", "label"))


def test_a_prediction_takes_no_object_for_a_cell(tmp_path: Path) -> None:
    """Ids and classes are those of the first table: the second one holds their places alone."""
    names = ("id", "split", "seed", "label", *(f"p_{name}" for name in "abcd"))
    rows = [
        (f"utterance {n}", "test", "0", "a", *(f"0.{n + k:09d}" for k in range(4)))
        for n in range(4000)
    ]
    write_csv(tmp_path / "a.csv", names, rows)
    first = read_csv(tmp_path / "a.csv", names)
    tracemalloc.start()
    second = read_csv(tmp_path / "a.csv", names)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size < 130 * len(rows), size / len(rows)
    assert second.column("id")[7] is first.column("id")[7]
