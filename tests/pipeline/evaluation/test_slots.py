"""Probes and worse conditions: reading, refusing and scoring them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from features.errors import RunError
from features.files.csv_text import write_csv
from pipeline.evaluation.run_folder import Guess, RunFolder
from pipeline.evaluation.slots import conditions, probes
from pipeline.metrics.classes import MONITORS
from pipeline.report.evaluate import evaluate
from pipeline.runs.layout import CONDITIONS
from tests.support.runs.fake_run import FakeRun, edit_lines, rows_of


def fake_run(folder: Path) -> FakeRun:
    return FakeRun(folder, folds=3, each=20, facts=True, extras=True).write()


def test_probes_are_scored_like_models(tmp_path: Path) -> None:
    fake = fake_run(tmp_path)
    report = evaluate(fake.run, fake.data)
    text, speech = report.probes
    assert (text.slot, speech.slot) == ("text", "speech")
    assert set(speech.whole.scores.values()) == {1.0}
    assert text.whole.scores["uar"] == 0.25
    assert set(MONITORS) <= set(text.whole.intervals)
    assert text.whole.utterances == report.metrics["rows"]
    assert text.neutral is not None


def test_a_condition_that_changes_nothing_differs_by_exactly_nothing(tmp_path: Path) -> None:
    """In every draw, too: the draws of the model and of the condition are the same."""
    rows = rows_of(fake_run(tmp_path))
    without, shuffled = conditions(rows, None)
    assert (without.name, shuffled.name) == ("without_speech", "shuffled_text")
    for name in MONITORS:
        change = shuffled.differences[name]
        assert change.interval is not None
        assert (change.value, change.interval.low, change.interval.high) == (0, 0, 0)
        loss = without.differences[name]
        assert loss.interval is not None
        assert loss.interval.low <= loss.value <= loss.interval.high < 0
    assert without.neutral is None
    assert without.neutral_differences == {}


def test_pairing_narrows_the_interval(tmp_path: Path) -> None:
    rows = rows_of(fake_run(tmp_path))
    rng = np.random.default_rng(0)
    jobs = []
    for job in rows.jobs:
        guesses = job.predictions[job.test].copy()
        few = rng.random(len(guesses)) < 0.05
        guesses[few] = (guesses[few] + 1) % 4
        noisy = Guess(guesses, None, np.zeros((len(guesses), 0)))
        jobs.append(replace(job, conditions={"noisy": noisy}))
    (found,) = conditions(replace(rows, jobs=tuple(jobs)), None)
    change, alone = found.differences["accuracy"].interval, found.whole.intervals["accuracy"]
    assert change is not None
    assert change.high - change.low < (alone.high - alone.low) / 2


def test_the_neutral_part_is_compared_with_the_models_own(tmp_path: Path) -> None:
    rows = rows_of(fake_run(tmp_path))
    keep = np.arange(len(rows.utterances)) % 2 == 0
    without, _ = conditions(rows, keep)
    assert without.neutral is not None
    assert without.neutral.utterances == keep.sum()
    right = (rows.predictions == rows.labels)[keep[rows.utterance]].mean()
    expected = without.neutral.scores["accuracy"] - right
    assert without.neutral_differences["accuracy"].value == pytest.approx(expected, abs=1e-12)
    few = np.arange(len(rows.utterances)) < 5
    without, _ = conditions(rows, few)
    assert without.neutral is not None
    assert dict(without.neutral.scores) == {}
    assert without.neutral_differences == {}


def test_a_run_without_them_has_none(tmp_path: Path) -> None:
    rows = rows_of(FakeRun(tmp_path).write())
    assert probes(rows, None) == ()
    assert conditions(rows, None) == ()


def test_one_speaker_gives_differences_without_intervals(tmp_path: Path) -> None:
    rows = rows_of(FakeRun(tmp_path, speakers=3, extras=True).write())
    for condition in conditions(rows, None):
        assert {change.interval for change in condition.differences.values()} == {None}


def test_probes_of_one_seed_count_for_all(tmp_path: Path) -> None:
    fake = fake_run(tmp_path)
    before = evaluate(fake.run, fake.data).probes
    for fold in range(3):
        fake.predictions(1, fold).with_name("probes.csv").unlink()
    assert evaluate(fake.run, fake.data).probes == before


def test_an_empty_file_holds_no_condition(tmp_path: Path) -> None:
    """A model of one slot, and that not text, cannot be made worse."""
    fake = FakeRun(tmp_path, extras=True).write()
    for seed in fake.seeds:
        write_csv(fake.predictions(seed).with_name("conditions.csv"), CONDITIONS, [])
    assert evaluate(fake.run, fake.data).conditions == ()


def test_rows_may_come_in_any_order(tmp_path: Path) -> None:
    fake = fake_run(tmp_path)
    before = RunFolder.read(fake.run).jobs[0]
    for name in ("probes.csv", "conditions.csv"):
        edit_lines(fake.predictions().with_name(name), lambda x: [x[0], *x[:0:-1]])
    after = RunFolder.read(fake.run).jobs[0]
    for one, other in ((before.probes, after.probes), (before.conditions, after.conditions)):
        assert one.keys() == other.keys()
        for name, guesses in one.items():
            np.testing.assert_array_equal(guesses.predictions, other[name].predictions)


def edit(name: str, change: Callable[[list[str]], list[str]]) -> Callable[[FakeRun], None]:
    return lambda fake: edit_lines(fake.predictions().with_name(name), change)


def relabel(lines: list[str]) -> list[str]:
    id, name, label, *rest = lines[1].split(",")
    other = "sad" if label != "sad" else "happy"
    return [lines[0], ",".join([id, name, other, *rest]), *lines[2:]]


def forget_a_fold(fake: FakeRun) -> None:
    for seed in fake.seeds:
        fake.predictions(seed, 1).with_name("probes.csv").unlink()


REFUSALS: dict[str, tuple[Callable[[FakeRun], None], str]] = {
    "row lost": (
        edit("probes.csv", lambda x: x[:-1]),
        "probes.csv: slot 'speech' lacks 1 test utterances, such as .* expected all 58",
    ),
    "row twice": (
        edit("conditions.csv", lambda x: [*x, x[-1]]),
        "conditions.csv, line .* a second time for condition 'shuffled_text'",
    ),
    "alien id": (
        edit("conditions.csv", lambda x: [*x, "zz,new,sad,sad"]),
        "line .*id 'zz' is not in the test split",
    ),
    "other label": (edit("probes.csv", relabel), "probes.csv, line 2: label of .* expected"),
    "alien class": (
        edit("conditions.csv", lambda x: [*x, x[1].rsplit(",", 1)[0] + ",bored"]),
        "prediction is 'bored'; expected one of",
    ),
    "wrong sum": (
        edit("probes.csv", lambda x: [x[0], x[1].replace(",1.0", ",0.5"), *x[2:]]),
        "probes.csv, line 2: probabilities .*expected a sum of 1",
    ),
    "missing column": (
        edit("probes.csv", lambda x: [line.rsplit(",", 1)[0] for line in x]),
        "probes.csv: columns .*missing",
    ),
    "jobs that differ": (
        lambda fake: fake.predictions(1, 2).with_name("conditions.csv").unlink(),
        "jobs hold different conditions",
    ),
    "fold without": (
        forget_a_fold,
        "jobs hold different probes",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refuses(case: str, tmp_path: Path) -> None:
    spoil, complaint = REFUSALS[case]
    fake = fake_run(tmp_path)
    spoil(fake)
    with pytest.raises(RunError, match=complaint) as caught:
        RunFolder.read(fake.run)
    assert "`dvc repro`" in str(caught.value)
