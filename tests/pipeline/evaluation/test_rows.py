"""Test rows as arrays, and the clusters that the bootstrap draws."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from features.corpus.manifest import Label
from pipeline.evaluation.rows import cluster_unit
from pipeline.evaluation.run_folder import RunFolder
from pipeline.metrics.classes import confusion
from pipeline.report.evaluate import evaluate
from tests.support.runs.fake_run import FakeRun, rows_of


def said(*turns: tuple[str, str | None]) -> list[Label]:
    return [
        Label(id=f"u{k}", label="a", speaker=speaker, dialogue=dialogue)
        for k, (speaker, dialogue) in enumerate(turns)
    ]


@pytest.mark.parametrize(
    ("unit", "turns"),
    [
        ("dialogue", [("anna", "d0"), ("ben", "d0"), ("ben", "d1"), ("cora", "d1")]),
        ("speaker", [("anna", None), ("ben", "d0"), ("cora", "d0")]),
        ("speaker", [("anna", "film 0"), ("anna", "film 0"), ("ben", "film 1")]),
        # half of the dialogues are monologues
        ("speaker", [("anna", "d0"), ("ben", "d0"), ("ben", "d1")]),
        ("dialogue", [("a", "d0"), ("b", "d0"), ("b", "d1"), ("a", "d2"), ("c", "d2")]),
    ],
)
def test_conversations_are_drawn_whole_and_else_speakers(
    unit: str, turns: list[tuple[str, str | None]]
) -> None:
    assert cluster_unit(said(*turns)) == unit


def test_the_report_says_what_was_drawn(tmp_path: Path) -> None:
    # one fold tests every third speaker, so that no test dialogue holds two
    alone = evaluate(*folders(FakeRun(tmp_path / "a").write())).clusters
    assert (alone.unit, alone.number, alone.shared_speakers) == ("speaker", 3, 0)
    pairs = evaluate(*folders(FakeRun(tmp_path / "b", folds=3).write())).clusters
    assert (pairs.unit, pairs.number, pairs.shared_speakers) == ("dialogue", 5, 0)


def folders(fake: FakeRun) -> tuple[Path, Path]:
    return fake.run, fake.data


def test_rows_are_those_of_the_jobs(tmp_path: Path) -> None:
    fake = FakeRun(tmp_path, folds=3).write()
    rows, run = rows_of(fake), RunFolder.read(fake.run)
    start = 0
    for job in run.jobs:
        part = slice(start, start := start + int(job.test.sum()))
        ids = np.array(job.table.column("id"))[job.test].tolist()
        assert [rows.utterances[u].id for u in rows.utterance[part]] == ids
        np.testing.assert_array_equal(rows.labels[part], job.labels[job.test])
        np.testing.assert_array_equal(rows.probabilities[part], job.probabilities[job.test])
        assert set(rows.seed[part]) == {run.seeds.index(job.seed)}
    assert start == len(rows.labels)
    assert len(rows.utterances) == 9 * 12 - 2


def test_matrices_of_a_part_and_of_its_rest_add_up(tmp_path: Path) -> None:
    rows = rows_of(FakeRun(tmp_path, folds=3).write())
    keep = np.arange(len(rows.utterances)) % 3 == 0
    whole = rows.matrices()
    assert whole.shape == (2, 5, 4, 4)
    np.testing.assert_array_equal(rows.matrices(keep) + rows.matrices(~keep), whole)
    first = rows.seed == 0
    np.testing.assert_array_equal(
        whole[0].sum(0), confusion(rows.labels[first], rows.predictions[first], 4)
    )
    right = rows.matrices(predictions=rows.labels).sum((0, 1))
    assert np.trace(right) == right.sum() == len(rows.labels)
