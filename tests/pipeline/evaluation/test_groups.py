"""Groups and their gaps: scikit-learn, planted gaps, and groups too small to speak of."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sklearn import metrics as oracle

from pipeline.evaluation.groups import BANDS, grouping, known_groupings, measure, speaker_spread
from pipeline.evaluation.rows import RunRows
from pipeline.evaluation.statistics import bootstrap
from pipeline.evaluation.summaries import intervals_of
from pipeline.metrics.classes import MONITORS
from tests.support.runs.fake_run import FakeRun, rows_of


@pytest.fixture
def rows(tmp_path: Path) -> RunRows:
    return rows_of(FakeRun(tmp_path, folds=3, speakers=24, each=20, facts=True).write())


def spoiled(rows: RunRows, women_right: float, men_right: float) -> RunRows:
    """Predictions that are right with a chance that depends on gender."""
    rng = np.random.default_rng(3)
    female = np.array([label.gender == "female" for label in rows.utterances])[rows.utterance]
    right = rng.random(len(female)) < np.where(female, women_right, men_right)
    wrong = (rows.labels + rng.integers(1, 4, len(female))) % 4
    return replace(rows, predictions=np.where(right, rows.labels, wrong))


def by_gender(rows: RunRows) -> list[str | None]:
    return [label.gender for label in rows.utterances]


def test_scores_of_a_group_equal_scikit_learn(rows: RunRows) -> None:
    found = grouping(rows, "gender", by_gender(rows))
    assert found is not None
    assert [group.name for group in found.groups] == ["female", "male"]
    for group in found.groups:
        of_seeds = []
        for seed in (0, 1):
            keep = (np.array(by_gender(rows)) == group.name)[rows.utterance] & (rows.seed == seed)
            pair = rows.labels[keep], rows.predictions[keep]
            assert group.utterances == keep.sum()
            of_seeds.append([oracle.accuracy_score(*pair), oracle.balanced_accuracy_score(*pair)])
        mean = np.mean(of_seeds, 0)
        assert group.scores["accuracy"] == pytest.approx(mean[0], abs=1e-12)
        assert group.scores["uar"] == pytest.approx(mean[1], abs=1e-12)
        for name in MONITORS:
            interval = group.intervals[name]
            assert interval.low < group.scores[name] < interval.high
    assert sum(group.utterances for group in found.groups) == len(rows.utterances)


def test_a_planted_gap_is_found_and_chance_is_not_called_one(rows: RunRows) -> None:
    found = grouping(spoiled(rows, 0.9, 0.5), "gender", by_gender(rows))
    assert found is not None
    for name in MONITORS:
        gap = found.gaps[name]
        assert (gap.best, gap.worst) == ("female", "male")
        female, male = (group.scores[name] for group in found.groups)
        assert gap.value == pytest.approx(female - male, abs=1e-12)
        assert gap.difference.low > 0
        assert gap.interval.low <= gap.value <= gap.interval.high
    alike = grouping(spoiled(rows, 0.7, 0.7), "gender", by_gender(rows))
    assert alike is not None
    assert alike.gaps["accuracy"].difference.low < 0
    # highest minus lowest is above 0 by definition
    assert alike.gaps["accuracy"].interval.low >= 0


def test_gaps_are_over_the_classes_that_both_groups_hold(rows: RunRows) -> None:
    """Men never say "sad", which is always predicted wrongly: that is no gap between people."""
    sad, other = rows.classes.index("sad"), rows.classes.index("angry")
    gender = by_gender(rows)
    names = [
        None if label.label == "sad" and name == "male" else name
        for label, name in zip(rows.utterances, gender, strict=True)
    ]
    predictions = np.where(rows.labels == sad, other, rows.labels)
    found = grouping(replace(rows, predictions=predictions), "gender", names)
    assert found is not None
    assert found.common == ("angry", "happy", "neutral")
    female, male = found.groups
    assert female.scores["uar"] == pytest.approx(0.75, abs=1e-12)
    assert male.scores["uar"] == 1
    assert (found.gaps["uar"].value, found.gaps["accuracy"].value) == (0, 0)
    whole = grouping(rows, "gender", gender)
    assert whole is not None
    assert whole.common == ()


def test_the_whole_is_one_group_with_the_intervals_of_the_run(rows: RunRows) -> None:
    whole = measure(rows, "all").group
    intervals = intervals_of(rows)
    assert whole.intervals == {name: intervals[name] for name in whole.intervals}
    assert set(MONITORS) <= set(whole.intervals)


def test_a_groups_interval_is_that_of_its_clusters(rows: RunRows) -> None:
    """Leaving empty clusters out changes which draws are made, not what they are about."""
    keep = np.array([label.gender == "female" for label in rows.utterances])
    alone = rows.matrices(keep)
    alone = alone[:, alone.sum((0, 2, 3)) > 0]
    expected = bootstrap(alone, lambda m: {"accuracy": accuracy(m)})["accuracy"]
    found = measure(rows, "female", keep).group.intervals["accuracy"]
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.03)


def accuracy(matrices: np.ndarray) -> np.ndarray:
    hits = np.trace(matrices, axis1=-2, axis2=-1)
    return np.asarray(hits / np.maximum(matrices.sum((-2, -1)), 1))


def test_small_groups_are_listed_and_not_scored(rows: RunRows) -> None:
    names: list[str | None] = ["many"] * len(rows.utterances)
    names[:9] = ["nine"] * 9
    single = rows.utterances[-1].speaker
    for u, label in enumerate(rows.utterances):
        if label.speaker == single:
            names[u] = "one speaker"
    found = grouping(rows, "x", names)
    assert found is not None
    many, nine, one = found.groups
    assert (nine.name, nine.utterances, dict(nine.scores)) == ("nine", 9, {})
    assert one.speakers == 1
    assert set(one.scores) > set(MONITORS)
    assert dict(one.intervals) == {}
    assert many.intervals
    assert found.gaps == {}  # as only one group has intervals


def test_what_is_unknown_is_counted_and_nothing_known_is_no_grouping(rows: RunRows) -> None:
    names = by_gender(rows)
    names[:3] = [None] * 3
    found = grouping(rows, "gender", names)
    assert found is not None
    assert found.unknown == 3
    assert grouping(rows, "gender", [None] * len(names)) is None


def test_durations_fall_into_bands_that_begin_where_they_say(rows: RunRows) -> None:
    edges = [0.1, 1.99, 2.0, 4.99, 5.0, 9.99, 10.0, 99.0]
    labels = tuple(
        replace(label, seconds=edges[u % 8], session=None, gender=None)
        for u, label in enumerate(rows.utterances)
    )
    (found,) = known_groupings(replace(rows, utterances=labels))
    assert (found.field, found.unknown) == ("duration", 0)
    assert [group.name for group in found.groups] == list(BANDS)
    numbers = [group.utterances for group in found.groups]
    assert max(numbers) - min(numbers) <= 2


def test_known_groupings_are_those_the_labels_speak_of(tmp_path: Path, rows: RunRows) -> None:
    assert [found.field for found in known_groupings(rows)] == ["gender", "duration", "session"]
    assert known_groupings(rows_of(FakeRun(tmp_path / "bare").write())) == []


def test_speakers_are_ranked_by_accuracy(rows: RunRows) -> None:
    found = speaker_spread(rows)
    assert (len(found.speakers), found.too_few) == (24, 0)
    values = [speaker.accuracy for speaker in found.speakers]
    assert values == sorted(values)
    assert (found.lowest, found.highest) == (values[0], values[-1])
    assert found.median == np.median(values)
    names = np.array([label.speaker for label in rows.utterances])[rows.utterance]
    for speaker in found.speakers:
        keep = names == speaker.speaker
        expected = oracle.accuracy_score(rows.labels[keep], rows.predictions[keep])
        assert speaker.accuracy == pytest.approx(expected, abs=1e-12)
        assert 2 * speaker.utterances == keep.sum()


def test_speakers_of_few_words_are_not_scored(tmp_path: Path) -> None:
    found = speaker_spread(rows_of(FakeRun(tmp_path, each=9).write()))
    assert (found.speakers, found.too_few) == ((), 3)
    assert (found.lowest, found.median, found.highest) == (None, None, None)
    # ten are enough; two of the first speaker's were dropped
    found = speaker_spread(rows_of(FakeRun(tmp_path / "ten", each=10).write()))
    assert [speaker.utterances for speaker in found.speakers] == [10, 10]
    assert found.too_few == 1
