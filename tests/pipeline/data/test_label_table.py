"""Labels as columns are the labels, without what training does not read."""

from __future__ import annotations

import pickle  # noqa: TID251  as training sends labels to its processes
from dataclasses import fields, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.corpus.manifest import SPLITS, Label
from pipeline.data.label_table import HELD, LabelTable, in_split

FOLDS = 2
few = st.sampled_from("abc")
labels = st.builds(
    Label,
    id=st.text("aä1-", min_size=1),
    label=few,
    speaker=few,
    dialogue=st.none() | few,
    turn=st.none() | st.integers(0, 3),
    text=st.just("not held"),
    seconds=st.just(1.0),
    splits=st.tuples(*[st.sampled_from(SPLITS)] * FOLDS),
    votes=st.none() | st.dictionaries(few, st.integers(1, 3), min_size=1),
    values=st.none() | st.dictionaries(few, st.floats(0, 1), min_size=1),
)


def seen(label: Label) -> Label:
    """What a table holds of a label."""
    absent: dict[str, Any] = {f.name: None for f in fields(Label) if f.name not in ("id", *HELD)}
    return replace(label, **absent)


@given(rows=st.lists(labels, min_size=1, unique_by=lambda label: label.id))
def test_a_table_holds_what_training_reads(rows: list[Label]) -> None:
    with TemporaryDirectory() as folder:
        table = LabelTable.write(Path(folder, "labels"), rows)
        # As another process gets it.
        sent: LabelTable = pickle.loads(pickle.dumps(table))
        assert list(sent) == [seen(label) for label in rows]
        assert sent[-1] == seen(rows[-1])
        assert list(sent[1:3]) == [seen(label) for label in rows[1:3]]
        for fold in range(FOLDS):
            for name in SPLITS:
                expected = [seen(label) for label in in_split(rows, fold, name)]
                part = in_split(sent, fold, name)
                assert list(part) == expected
                assert isinstance(part, LabelTable)
                assert [rows[place].id for place in part.rows] == [each.id for each in expected]
        with pytest.raises(IndexError):
            sent[len(rows)]


def test_arrays_are_sent_as_their_path(tmp_path: Path) -> None:
    splits = ("train",)
    rows = [Label(f"utterance {n}", "sad", "anna", splits=splits) for n in range(5000)]
    assert len(pickle.dumps(LabelTable.write(tmp_path / "labels", rows))) < 2000
