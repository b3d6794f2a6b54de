"""Scores of runs that learn attributes and votes, against the items themselves."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from features.corpus.manifest import Label, read_labels
from features.corpus.ratings import read_ratings
from features.errors import RunError
from pipeline.evaluation.attributes.parts import LEAST_ROWS
from pipeline.evaluation.attributes.rows import AttributeRows, draws_of
from pipeline.evaluation.attributes.scores import AttributeResults, attribute_results
from pipeline.evaluation.ceilings import ceilings
from pipeline.evaluation.hard_labels import labelled_rows
from pipeline.evaluation.labels import check_labels
from pipeline.evaluation.rows import RunRows
from pipeline.evaluation.run_folder import RunFolder
from pipeline.evaluation.statistics import cluster_counts, resample
from pipeline.evaluation.votes.scores import VoteResults, vote_results
from pipeline.metrics.votes import vote_scores
from tests.support.runs.fake_run import edit_json, edit_lines
from tests.support.runs.fake_targets import SCALES, FakeTargets

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Scored:
    """A run, its labels and its results."""

    fake: FakeTargets
    run: RunFolder
    labels: list[Label]
    rows: RunRows
    attributes: AttributeResults
    votes: VoteResults


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> Scored:
    """Three folds, two seeds, nine speakers."""
    fake = FakeTargets(tmp_path_factory.mktemp("targets"), folds=3, facts=True).write()
    run, labels = RunFolder.read(fake.run), list(read_labels(fake.data))
    rows = RunRows.of(run, {label.id: label for label in labels})
    return Scored(
        *(fake, run, labels, rows),
        attribute_results(run, rows, labels),
        vote_results(run, rows, labels),
    )


def ccc(x: Array, y: Array) -> float:
    covariance = np.cov(x, y, ddof=0)
    bottom = covariance[0, 0] + covariance[1, 1] + (x.mean() - y.mean()) ** 2
    return float(2 * covariance[0, 1] / bottom)


def pairs(
    run: RunFolder, seed: int, attribute: int, fold: int | None = None
) -> tuple[Array, Array]:
    """Predictions and known truth of one seed's test rows."""
    jobs = [job for job in run.jobs if job.seed == seed and fold in (None, job.fold)]
    x = np.concatenate([job.values[job.test, attribute] for job in jobs])
    y = np.concatenate([job.truth[job.test, attribute] for job in jobs])
    return x[~np.isnan(y)], y[~np.isnan(y)]


def test_attributes_are_means_over_seeds_with_folds_pooled_and_by_fold(scored: Scored) -> None:
    for k, found in enumerate(scored.attributes.attributes):
        each = [ccc(*pairs(scored.run, seed, k)) for seed in scored.run.seeds]
        folds = [ccc(*pairs(scored.run, s, k, fold=f)) for s in scored.run.seeds for f in range(3)]
        summary = found.scores["ccc"]
        assert summary.value == pytest.approx(np.mean(each))
        assert summary.sd == pytest.approx(np.std(each, ddof=1))
        assert summary.fold_mean == pytest.approx(np.mean(folds))
        assert summary.interval is not None
        assert summary.interval.low < summary.value < summary.interval.high
        _, y = pairs(scored.run, scored.run.seeds[0], k)
        assert found.rows == len(y)
        assert found.truth_sd == pytest.approx(y.std())
        both = [pairs(scored.run, seed, k) for seed in scored.run.seeds]
        biases = [np.mean(x - y) for x, y in both]
        assert found.scores["bias"].value == pytest.approx(np.mean(biases))
        by_job = [job.scores[f"ccc_{found.name}"] for job in scored.attributes.jobs]
        assert by_job == pytest.approx(folds)
    mean = scored.attributes.mean
    assert mean is not None
    assert mean.value == pytest.approx(
        np.mean([found.scores["ccc"].value for found in scored.attributes.attributes])
    )


def test_draws_are_those_of_classes_and_undefined_ones_are_left_out(scored: Scored) -> None:
    """The same clusters are drawn, so that differences between kinds of targets are paired."""
    data = AttributeRows.of(scored.run, scored.rows)
    draws = draws_of(data, data.sums()).values
    matrices = np.zeros((scored.rows.seeds, scored.rows.clusters.number, 4, 4), np.int64)
    counts = np.concatenate(list(cluster_counts(matrices, 2000, 0)))
    first = np.repeat(np.arange(len(scored.rows.utterance)), counts[0][scored.rows.cluster])
    values = []
    for seed in range(scored.rows.seeds):
        rows = first[scored.rows.seed[first] == seed]
        known = rows[~np.isnan(data.truth[rows, 0])]
        values.append(ccc(data.prediction[known, 0], data.truth[known, 0]))
    assert draws["ccc_arousal"][0] == pytest.approx(np.mean(values))
    lonely = replace(data, truth=np.where(scored.rows.cluster[:, None] == 0, data.truth, np.nan))
    partly = resample(lonely.sums(), lonely.statistic)["ccc_arousal"]
    assert np.isnan(partly).sum() == (counts[:, 0] == 0).sum()


def test_the_training_mean_is_a_baseline_below_0_where_folds_are_pooled(scored: Scored) -> None:
    for found in scored.attributes.attributes:
        assert found.train_mean["ccc"] < 0
        assert found.train_mean["rmse"] > found.scores["rmse"].value
        assert found.gain is not None
        expected = found.train_mean["rmse"] - found.scores["rmse"].value
        assert found.gain.value == pytest.approx(expected)


def test_groups_speakers_and_residuals(scored: Scored) -> None:
    found = scored.attributes
    assert {groups.field for groups in found.groups} == {"gender", "duration", "session"}
    for groups in found.groups:
        for group in groups.attributes["arousal"]:
            assert (group.ccc is None) == (group.rows < LEAST_ROWS)
            assert group.truth_sd > 0
    assert len(found.speakers) == scored.fake.speakers
    first, *_, last = found.terciles["arousal"]
    assert first.residual > 0 > last.residual  # the fake model drifts to the middle
    assert sum(b.rows for b in found.bins["arousal"]) == found.attributes[0].rows
    sizes = [error.size for error in found.errors]
    assert sizes == sorted(sizes, reverse=True)


def test_probes_and_conditions_of_attributes(scored: Scored) -> None:
    (probe,), (without,) = scored.attributes.probes, scored.attributes.conditions
    assert probe.ccc == pytest.approx(1)
    assert without.by_attribute == {"arousal": 0, "valence": 0}  # the middle, for all
    assert without.change is not None
    assert without.change.interval is not None
    assert without.change.interval.high < 0


def test_votes_are_means_over_items_and_beat_their_baselines(scored: Scored) -> None:
    found = scored.votes
    values = []
    for seed in scored.run.seeds:
        jobs = [job for job in scored.run.jobs if job.seed == seed]
        t = np.concatenate([job.shares[job.test] for job in jobs])
        q = np.concatenate([job.probabilities[job.test] for job in jobs])
        known = ~np.isnan(t[:, 0])
        values.append(vote_scores(t[known], q[known])["jsd"].mean())
        assert found.rows == known.sum()
    assert found.scores["jsd"].value == pytest.approx(np.mean(values), abs=1e-6)
    assert found.scores["jsd"].value < found.prior["jsd"] < found.uniform["jsd"]
    assert found.uniform["multilabel_macro_f1"] == 0  # an even prediction names no class
    assert found.gain.value == pytest.approx(found.prior["jsd"] - found.scores["jsd"].value)
    assert sum(stratum.rows for stratum in found.entropy) == found.rows
    assert [stratum.name for stratum in found.raters] == ["5 to 6"]
    assert found.temperature is not None
    assert found.temperature.after < found.temperature.before
    assert all(0 <= each.error < 0.5 for each in found.reliability)


def test_rows_without_agreement_are_left_out_of_classes_alone(scored: Scored) -> None:
    found = labelled_rows(scored.run, scored.labels)
    assert found is not None
    assert all(label.label for label in found.labels)
    assert len(found.labels) < len(scored.labels)
    assert all((job.labels >= 0).all() for job in found.run.jobs)
    sizes = [len(job.labels) for job in found.run.jobs]
    assert sizes == [len(job.table) for job in found.run.jobs]
    # Where the corpus names no class at all, the plurality of the votes stands in, if it is unique.
    bare = [replace(label, label=None) for label in scored.labels if label.votes]
    again = labelled_rows(scored.run, bare)
    assert again is not None
    assert again.pluralities == len(again.labels) > 0
    own = {label.id: label.label for label in scored.labels if label.label}
    assert all(label.label == own[label.id] for label in again.labels)
    # As many may have chosen one emotion that is no class.
    outside = [replace(label, votes_outside=9) for label in bare]
    assert labelled_rows(scored.run, outside) is None


def test_a_corpus_that_names_classes_gets_none_from_votes(scored: Scored) -> None:
    found = labelled_rows(scored.run, scored.labels)
    assert found is not None
    assert found.pluralities == 0
    some = next(label for label in found.labels if label.votes)
    without = [replace(each, label=None) if each is some else each for each in found.labels]
    again = labelled_rows(found.run, without)
    assert again is not None
    assert some.id not in {label.id for label in again.labels}


def test_ceilings_leave_raters_of_themselves_out(scored: Scored) -> None:
    ratings = read_ratings(scored.fake.data.parent / "ratings")
    arguments = (scored.rows.utterances, scored.run.classes, list(SCALES))
    found = ceilings(ratings, *arguments, {"alpha": {"classes": 0.4, "valence": None}})
    assert 0.5 < found.ccc["arousal"] < 1
    assert found.accuracy is not None
    assert found.alpha == {"classes": 0.4}
    own = [replace(ratings[-1], rater="S", self=True)]
    assert ceilings([*ratings, *own], *arguments, {}).raters == found.raters
    include = {"policies": {"self_evaluation": "include"}}
    assert ceilings([*ratings, *own], *arguments, include).raters == found.raters + 1


def set_cell(fake: FakeTargets, column: str, value: str) -> None:
    """Replace the first filled cell of a column of predictions.csv."""

    def change(lines: list[str]) -> list[str]:
        k = lines[0].split(",").index(column)
        row = next(n for n, line in enumerate(lines) if n and line.split(",")[k])
        cells = lines[row].split(",")
        lines[row] = ",".join([*cells[:k], value, *cells[k + 1 :]])
        return lines

    edit_lines(fake.predictions(), change)


@pytest.mark.parametrize(
    ("column", "value", "message"),
    [
        ("v_arousal", "7.5", r"line \d+: v_arousal is '7.5'; expected a number from 1 to 7:"),
        ("v_arousal", "", "v_arousal is ''; expected a number from 1 to 7:"),
        ("y_arousal", "0", "y_arousal is '0'; expected a number from 1 to 7, or none:"),
        ("y_arousal", "1.25", "attributes of 'u.*' are .*; labels.jsonl:"),
        ("y_arousal", "", "attributes of 'u.*' are .*; labels.jsonl:"),
        ("t_angry", "", "shares of votes .*; expected a sum of 1, or empty cells"),
    ],
)
def test_wrong_cells_are_named(tmp_path: Path, column: str, value: str, message: str) -> None:
    fake = FakeTargets(tmp_path).write()
    set_cell(fake, column, value)
    with pytest.raises(RunError, match=message):
        check_labels(RunFolder.read(fake.run), {x.id: x for x in read_labels(fake.data)})


def targets(**changes: object) -> dict[str, object]:
    """Field `targets` of run.json."""
    usual = {"tasks": ["classes", "attributes"], "attributes": {"arousal": [1, 7]}}
    return usual | {"genders": [], "losses": {}, "weights": {}} | changes


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"version": 1}, "version 1 with"),
        ({"classes": []}, "run.json: classes: given"),
        ({"targets": None}, "version 2 without"),
        ({"targets": targets(attributes={})}, "with attributes if and only if they are a task"),
        ({"targets": targets(tasks=["votes", "moods"])}, "expected some of"),
        ({"targets": targets(attributes={"arousal": [7, 1]})}, "arousal: given 7 to 1"),
    ],
)
def test_a_head_that_contradicts_itself_is_refused(
    tmp_path: Path, changes: dict[str, object], message: str
) -> None:
    fake = FakeTargets(tmp_path).write()
    edit_json(fake.run / "run.json", **changes)
    with pytest.raises(RunError, match=message):
        RunFolder.read(fake.run)


def test_a_test_split_without_a_target_is_refused(scored: Scored) -> None:
    jobs = tuple(
        replace(job, truth=np.full_like(job.truth, np.nan), shares=np.full_like(job.shares, np.nan))
        for job in scored.run.jobs
    )
    bare = replace(scored.run, jobs=jobs)
    with pytest.raises(RunError, match="arousal: 0 test utterances have a value of it"):
        attribute_results(bare, scored.rows, scored.labels)
    with pytest.raises(RunError, match="no test utterance has votes"):
        vote_results(bare, scored.rows, scored.labels)
