"""Comparisons of runs against scikit-learn, and properties that hold for any two runs."""

from __future__ import annotations

from dataclasses import astuple
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as oracle

from features.corpus.manifest import Label
from features.files.records import write_rows
from pipeline.compare.comparison import Change, Comparison, Settings
from pipeline.compare.page import as_text, sections
from pipeline.compare.rows import common_rows
from pipeline.compare.sources import read_run
from pipeline.evaluation.statistics import cluster_counts, expanded_interval
from pipeline.metrics.classes import MONITORS
from tests.support.runs.predicted_runs import CLASSES, FakePredictions, compare_runs

FAST = Settings(permutations=2000)
WEAK = FakePredictions(skill=0.4, draw=1)
GOOD = FakePredictions(skill=0.7, draw=2)


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Transcripts are looked for below the current folder."""
    monkeypatch.chdir(tmp_path)


def compared(folder: Path, *runs: FakePredictions, settings: Settings = FAST) -> Comparison:
    names = [run.write(folder / f"{k}.csv") for k, run in enumerate(runs)]
    return compare_runs(names, settings)


def seed_scores(run: FakePredictions, metric: str) -> list[float]:
    score = {
        "accuracy": oracle.accuracy_score,
        "uar": oracle.balanced_accuracy_score,
        "macro_f1": lambda y, g: oracle.f1_score(y, g, average="macro"),
        "weighted_f1": lambda y, g: oracle.f1_score(y, g, average="weighted"),
    }[metric]
    found = []
    for seed in run.seeds:
        rows = [row for row in run.rows() if row[3] == "test" and row[5] == seed]
        found.append(score([row[6] for row in rows], [row[7] for row in rows]))
    return found


@pytest.mark.parametrize("folds", [1, 4])
def test_scores_equal_scikit_learn(tmp_path: Path, folds: int) -> None:
    runs = WEAK.with_(folds=folds), GOOD.with_(folds=folds, seeds=(3, 5, 8))
    found = compared(tmp_path, *runs)
    assert (found.utterances, found.folds, found.unit, found.clusters) == (60, folds, "speaker", 12)
    for run, scores in zip(runs, found.runs, strict=True):
        assert scores.seeds == len(run.seeds)
        for name in MONITORS:
            expected = seed_scores(run, name)
            assert scores.scores[name].value == pytest.approx(np.mean(expected))
            assert scores.scores[name].sd == pytest.approx(np.std(expected, ddof=1))
    pair = found.pairs[0]
    for name, change in pair.changes.items():
        gap = np.mean(seed_scores(runs[1], name)) - np.mean(seed_scores(runs[0], name))
        assert change.value == pytest.approx(gap)
    rows = [row for row in runs[0].rows() if row[3] == "test" and row[5] == 0]
    assert [each.support for each in pair.classes] == [
        sum(row[6] == name for row in rows) for name in CLASSES
    ]


def test_class_changes_equal_scikit_learn(tmp_path: Path) -> None:
    runs = WEAK.with_(seeds=(4,)), GOOD.with_(seeds=(6,))
    pair = compared(tmp_path, *runs).pairs[0]
    for metric, score in (("recall", oracle.recall_score), ("f1", oracle.f1_score)):
        both = []
        for run in runs:
            rows = [row for row in run.rows() if row[3] == "test"]
            guesses = [row[7] for row in rows]
            both.append(score([row[6] for row in rows], guesses, average=None, labels=CLASSES))
        for k, each in enumerate(pair.classes):
            change = getattr(each, metric)
            assert (change.first, change.second) == pytest.approx((both[0][k], both[1][k]))
            assert change.interval.low <= change.value <= change.interval.high


def opposite(change: Change) -> tuple[float, ...]:
    assert change.interval is not None
    return (-change.value, -change.interval.high, -change.interval.low)


def plain(change: Change) -> tuple[float, ...]:
    assert change.interval is not None
    return (change.value, change.interval.low, change.interval.high)


def test_the_other_way_round_is_the_opposite(tmp_path: Path) -> None:
    ahead = compared(tmp_path / "ahead", WEAK, GOOD).pairs[0]
    back = compared(tmp_path / "back", GOOD, WEAK).pairs[0]
    for name in MONITORS:
        assert plain(ahead.changes[name]) == pytest.approx(opposite(back.changes[name]))
    for one, other in zip(ahead.classes, back.classes, strict=True):
        assert plain(one.recall) == pytest.approx(opposite(other.recall))
        assert plain(one.f1) == pytest.approx(opposite(other.f1))
    assert ahead.test == back.test
    assert ahead.mcnemar.p == back.mcnemar.p
    assert (ahead.flips.right_to_wrong, ahead.flips.wrong_to_right) == (
        back.flips.wrong_to_right,
        back.flips.right_to_wrong,
    )
    assert [flip.id for flip in ahead.flips.lost] == [flip.id for flip in back.flips.won]


def test_a_run_against_itself_is_no_difference(tmp_path: Path) -> None:
    pair = compared(tmp_path, GOOD, GOOD).pairs[0]
    assert all(plain(change) == (0, 0, 0) for change in pair.changes.values())
    assert set(pair.test.p.values()) == set(pair.p_holm.values()) == {1.0}
    assert pair.mcnemar.p == pair.mcnemar_holm == 1.0
    assert (pair.flips.right_to_wrong, pair.flips.wrong_to_right, pair.flips.lost) == (0, 0, ())


def test_a_real_difference_is_found(tmp_path: Path) -> None:
    change = compared(tmp_path, WEAK, GOOD.with_(skill=0.95)).pairs[0]
    assert change.test.unit == "speaker"
    for name in MONITORS:
        interval = change.changes[name].interval
        assert interval is not None
        assert interval.low > 0
        assert change.test.p[name] < 0.01


def test_intervals_are_paired(tmp_path: Path) -> None:
    """Every draw scores both runs: runs that fail together differ for certain."""
    rows = WEAK.with_(seeds=(0,), skill=0.1).rows()
    better = [list(row) for row in rows]
    for speaker in range(12):  # one more right for every speaker
        wrong = next(r for r in better if r[1] == f"s{speaker:02d}" and r[6] != r[7])
        right, given = (8 + WEAK.classes.index(wrong[k]) for k in (6, 7))
        wrong[right], wrong[given] = wrong[given], wrong[right]  # the prediction is the likeliest
        wrong[7] = wrong[6]
    names = [WEAK.write(tmp_path / "a.csv", rows), WEAK.write(tmp_path / "b.csv", better)]
    found = compare_runs(names, FAST)
    alone = found.runs[0].scores["accuracy"].interval
    assert alone is not None
    assert alone.high - alone.low > 0.1
    assert plain(found.pairs[0].changes["accuracy"]) == pytest.approx((0.2, 0.2, 0.2))


def test_interval_equals_scoring_the_drawn_utterances(tmp_path: Path) -> None:
    runs = WEAK, GOOD.with_(seeds=(0, 1, 2))
    change = compared(tmp_path, *runs).pairs[0].changes["uar"]
    matrices = common_rows([read_run(str(tmp_path / f"{k}.csv")) for k in (0, 1)]).runs[0].matrices
    (drawn,) = cluster_counts(matrices, 2000, 0)
    means = []
    for run in runs:
        rows = [row for row in run.rows() if row[3] == "test"]
        speaker = np.array([int(row[1][1:]) for row in rows])
        label = np.array([CLASSES.index(row[6]) for row in rows])
        group = 3 * np.array([run.seeds.index(row[5]) for row in rows]) + label
        right = np.array([row[6] == row[7] for row in rows])
        times = drawn[:, speaker]
        recalls = [np.bincount(group, each * right) / np.bincount(group, each) for each in times]
        means.append(np.mean(recalls, 1))
    assert change.interval is not None
    expected = expanded_interval(means[1] - means[0], 12)
    assert astuple(change.interval) == pytest.approx(astuple(expected))


@pytest.mark.slow
def test_all_pairs_are_corrected_together(tmp_path: Path) -> None:
    runs = WEAK, WEAK.with_(draw=5), GOOD.with_(skill=0.9)
    three = compared(tmp_path, *runs, settings=Settings(all_pairs=True, permutations=2000))
    two = compared(tmp_path, *runs)
    tags = [(pair.first, pair.second) for pair in three.pairs]
    assert tags == [("A", "B"), ("A", "C"), ("B", "C")]
    assert [(pair.first, pair.second) for pair in two.pairs] == tags[:2]
    for pairs, times in ((three.pairs, 3), (two.pairs, 2)):
        least = min(pairs, key=lambda pair: pair.test.p["uar"])
        assert least.p_holm["uar"] == pytest.approx(min(1, times * least.test.p["uar"]))
        assert all(p.p_holm[name] >= p.test.p[name] for p in pairs for name in MONITORS)
        assert all(p.mcnemar_holm >= p.mcnemar.p for p in pairs)


@pytest.mark.parametrize(
    ("speakers", "note"),
    [(5, "5 differing speakers are too few"), (9, "9 differing speakers are few"), (10, "")],
)
def test_few_speakers_are_swapped_whole_and_limit_p(
    tmp_path: Path, speakers: int, note: str
) -> None:
    few = {"speakers": speakers, "each": 12}
    found = compared(tmp_path, WEAK.with_(**few), GOOD.with_(**few))
    test, text = found.pairs[0].test, as_text(sections(found))
    assert (test.unit, test.units, test.smallest) == ("speaker", speakers, 2.0 ** (1 - speakers))
    words = " ".join(text.split())
    assert note in words
    assert (" for this test: p cannot be below " in words) == bool(note)
    assert (f" p ({test.smallest:.4f} or more) " in text) == bool(note)
    assert (
        "this p is too small for conclusions about other speakers" in words
    )  # McNemar's, however many there are


def test_one_speaker_has_no_intervals(tmp_path: Path) -> None:
    few = {"speakers": 1, "each": 20}
    found = compared(tmp_path, WEAK.with_(**few), GOOD.with_(**few))
    assert found.runs[0].scores["uar"].interval is None
    assert found.pairs[0].changes["uar"].interval is None
    assert found.pairs[0].classes[0].f1.interval is None


def test_a_class_without_test_rows(tmp_path: Path) -> None:
    names = []
    for k, run in enumerate((WEAK, GOOD)):
        rows = [row for row in run.rows() if row[6] != "happy"]
        names.append(run.write(tmp_path / f"{k}.csv", rows))
    found = compare_runs(names, FAST).pairs[0]
    assert [each.name for each in found.classes] == ["angry", "sad"]
    assert all(each.f1.interval is not None for each in found.classes)


def test_order_of_classes_and_rows_does_not_matter(tmp_path: Path) -> None:
    expected = compared(tmp_path, WEAK, GOOD).pairs
    turned = GOOD.with_(classes=CLASSES[::-1])
    name = turned.write(tmp_path / "turned.csv", turned.rows()[::-1])
    assert compare_runs([str(tmp_path / "0.csv"), name], FAST).pairs == expected


def test_flips_are_what_mcnemar_counts(tmp_path: Path) -> None:
    pair = compared(tmp_path, WEAK, GOOD, settings=Settings(flips=100, permutations=2000)).pairs[0]
    flips = pair.flips
    assert (len(flips.lost), len(flips.won)) == (flips.right_to_wrong, flips.wrong_to_right)
    assert (flips.right_to_wrong, flips.wrong_to_right) == (
        pair.mcnemar.right_to_wrong,
        pair.mcnemar.wrong_to_right,
    )
    assert all(flip.before == flip.label != flip.after for flip in flips.lost)
    assert all(flip.after == flip.label != flip.before for flip in flips.won)
    gains = [flip.gain for flip in flips.won]
    assert gains == sorted(gains, reverse=True)
    assert len(flips.won) > 5
    few = compared(tmp_path, WEAK, GOOD, settings=Settings(flips=2, permutations=2000)).pairs[0]
    assert few.flips.won == flips.won[:2]


def test_transcripts_come_from_the_labels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    facts = {row[0]: row for row in WEAK.rows() if row[3] == "test"}
    for corpus, text in (("another", "wrong"), ("mine", "right")):
        rows = [Label(id, row[6], row[1], text=f"{text} {id}") for id, row in facts.items()]
        if corpus == "another":
            rows = [Label(row.id, "bored", row.speaker, text=row.text) for row in rows]
        (tmp_path / "data" / corpus / "labels").mkdir(parents=True)
        write_rows(tmp_path / "data" / corpus / "labels" / "labels.jsonl", rows)
    won = compared(tmp_path, WEAK, GOOD).pairs[0].flips.won
    assert [flip.text for flip in won] == [f"right {flip.id}" for flip in won]
    (tmp_path / "data/mine/labels/labels.jsonl").write_text("{")
    assert compared(tmp_path, WEAK, GOOD).pairs[0].flips.won[0].text is None
