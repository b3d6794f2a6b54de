"""Sections on scores, training, calibration, groups, conditions and errors."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pipeline.evaluation.calibration import calibrate
from pipeline.report.evaluate import evaluate
from pipeline.report.page import section, view_of
from pipeline.report.records import Report
from tests.support.runs.fake_run import FakeRun
from tests.support.runs.pages import section_words


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Three folds, two seeds, and all that a corpus and a run may say."""
    root = tmp_path_factory.mktemp("whole")
    fake = FakeRun(root, folds=3, speakers=12, each=20, facts=True, extras=True).write()
    return evaluate(fake.run, fake.data)


@pytest.fixture(scope="module")
def bare(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """One seed, one fold, and nothing that need not be."""
    fake = FakeRun(tmp_path_factory.mktemp("bare"), seeds=(7,)).write()
    return evaluate(fake.run, fake.data)


def test_every_baseline_stands_beside_the_score(whole: Report) -> None:
    found = section_words("scores", whole)
    uar = whole.summaries["uar"]
    guesses = whole.baselines
    guessed = (of["uar"] for of in (guesses.majority, guesses.chance, guesses.prior))
    for value in (uar.value, *guessed, uar.fold_mean, uar.fold_sd):
        assert f"{value:.3f}" in found
    for name in ("This model", "Majority class", "Chance", "Prior", "probe on text", "on speech"):
        assert name in found
    for probe in whole.probes:
        assert f"{probe.whole.scores['uar']:.3f}" in found
    assert "Folds pooled" in found
    assert "Mean over folds" in found


def test_without_probes_and_folds_it_says_so(bare: Report) -> None:
    found = section_words("scores", bare)
    assert "this run has none" in found
    assert "Mean over folds" not in found


def test_one_vs_rest_accuracy_is_explained_by_what_is_shown(whole: Report) -> None:
    found = section_words("scores", whole)
    accuracy, ovr = (whole.summaries[name].value for name in ("accuracy", "ovr_accuracy"))
    assert ovr == pytest.approx(1 - 2 * (1 - accuracy) / 4, abs=1e-12)
    assert f"here 1 − 2 (1 − {accuracy:.3f}) / 4 = {ovr:.3f}" in found
    f1 = [whole.summaries[name].value for name in ("ovr_weighted_f1", "weighted_f1")]
    shown = " ".join(f"{value:.3f}" for value in (ovr, accuracy, *f1))
    assert f"This model {shown}" in found


def test_intervals_say_what_they_are_over(whole: Report, bare: Report) -> None:
    assert "bootstrap over 6 dialogues" in section_words("scores", whole)
    assert "Only 6 dialogues in the test split: intervals, though" in section_words("scores", whole)
    assert "Only 3 speakers in the test split: too few" in section_words("scores", bare)
    assert "bootstrap" not in section_words("scores", bare)
    shared = replace(whole, clusters=replace(whole.clusters, shared_speakers=2))
    note = "2 speakers occur in several dialogues: intervals are too narrow for conclusions"
    assert note in section_words("scores", shared)


def test_seeds_and_folds_are_given_one_by_one_and_as_mean_and_sd(whole: Report) -> None:
    found = section_words("seeds", whole)
    for job in whole.jobs:
        of = job.scores["weighted_f1"]
        assert f"{job.seed} {job.fold} {job.scores['accuracy']:.3f}" in found
        assert f"{of:.3f} {job.temperature:.2f} {job.utterances}" in found
    pooled = [seed.scores["uar"] for seed in whole.seeds]
    averaged = [seed.fold_mean["uar"] for seed in whole.seeds if seed.fold_mean]
    assert len(averaged) == 2
    for values in (pooled, averaged):
        assert f"{np.mean(values):.3f} ± {np.std(values, ddof=1):.3f}" in found


def test_one_seed_has_no_sd(bare: Report) -> None:
    assert "±" not in section_words("seeds", bare)


def test_classes(whole: Report) -> None:
    found = section_words("classes", whole)
    for of in whole.classes:
        assert f"{of.name} {of.precision:.3f} {of.recall:.3f} {of.f1:.3f}" in found
        assert of.f1_interval is not None
        interval = f"{of.f1_interval.low:.3f} – {of.f1_interval.high:.3f}"
        assert f"{of.f1:.3f} {interval} {of.support}" in found
        assert f"{of.name} {of.ovr_accuracy:.3f} {of.ovr_weighted_f1:.3f}" in found


def test_splits_that_lack_a_class_are_named_in_the_summary(bare: Report) -> None:
    (counts,) = bare.card["counts"]
    lacking = {**counts, "train": counts["train"] | {"sad": 0}}
    found = section_words("summary", replace(bare, card={**bare.card, "counts": [lacking]}))
    assert "train has no utterance of the class 'sad': a model cannot learn it" in found
    assert "has no utterance" not in section_words("summary", bare)


def test_curves_have_a_description(whole: Report) -> None:
    kept = [
        job.history.numbers("train_loss")[job.history.numbers("best") == 1]
        for job in whole.run.jobs
    ]
    found = section("curves", **view_of(whole))
    assert "6 trained models, on average" in found
    assert f"{np.mean(kept):.3f} in those kept" in found


@pytest.mark.slow
def test_calibration_before_and_after(whole: Report) -> None:
    found, of = section_words("calibration", whole), whole.calibration
    assert of is not None
    assert of.after is not None
    for name in ("nll", "brier", "ece", "ece_adaptive"):
        assert f"{getattr(of.before, name):.4f} {getattr(of.after, name):.4f}" in found
    assert "validation rows alone" in found
    assert f"{min(of.temperatures):.2f} to {max(of.temperatures):.2f}" in found
    for point in of.reliability:
        assert f"{point.confidence:.3f} {point.accuracy:.3f} {point.count}" in found


def test_calibration_without_validation_rows(whole: Report) -> None:
    jobs = [replace(job, **_only_test(job)) for job in whole.run.jobs]
    spoiled = replace(calibrate(jobs), clipped=2, at_bound=1)
    found = section_words("calibration", replace(whole, calibration=spoiled))
    assert "No temperature" in found
    assert "2 test rows gave the true class a probability of 0" in found
    assert "1 temperature ended at a bound" in found
    assert "After temperature scaling 0" not in found


def _only_test(job: Any) -> dict[str, Any]:
    arrays = ("labels", "predictions", "probabilities", "test")
    return {name: getattr(job, name)[job.test] for name in arrays}


def test_gaps_have_groups_sizes_and_intervals(whole: Report) -> None:
    found = section_words("groups", whole)
    assert "fewer than 10 test utterances" in found
    for field in ("gender", "duration", "session"):
        assert f"By {field}" in found
    gender = next(grouping for grouping in whole.groupings if grouping.field == "gender")
    for group in gender.groups:
        assert f"{group.name} {group.utterances} {group.speakers}" in found
    gap = gender.gaps["uar"]
    assert f"UAR {gap.best} {gap.worst} {gap.value:.3f}" in found
    assert f"{gap.interval.low:.3f} – {gap.interval.high:.3f}" in found
    for speaker in whole.speaker_spread.speakers:
        assert f"{speaker.speaker} {speaker.utterances} {speaker.accuracy:.3f}" in found


def test_what_the_corpus_does_not_say_is_named(bare: Report, tmp_path: Path) -> None:
    assert "Not stated by the corpus: gender, duration, session." in section_words("groups", bare)
    fake = FakeRun(tmp_path, each=5).write()
    few = section_words("groups", evaluate(fake.run, fake.data))
    assert "No speaker has 10 test utterances or more" in few


def test_conditions_have_differences_with_intervals(whole: Report, bare: Report) -> None:
    found = section_words("robustness", whole)
    for condition in whole.conditions:
        assert condition.name.replace("_", " ", 1) in found
        change = condition.differences["uar"]
        assert f"{abs(change.value):.3f}" in found
        assert change.interval is not None
        assert f"{abs(change.interval.low):.3f} to" in found
    assert "shuffled text 0.000 0.000 to 0.000" in found
    assert "no test of worse conditions" in section_words("robustness", bare)


def test_the_lexically_neutral_subset(whole: Report, bare: Report) -> None:
    found = section_words("neutral", whole)
    lexical = next(grouping for grouping in whole.groupings if grouping.field == "lexical")
    neutral = next(group for group in lexical.groups if group.name == "neutral")
    assert f"On the {neutral.utterances} lexically neutral test utterances alone" in found
    for probe in whole.probes:
        assert probe.neutral is not None
        assert f"Linear probe on {probe.slot} {probe.neutral.scores['accuracy']:.3f}" in found
    assert "Neither transcripts nor sentences" in section_words("neutral", bare)
    few = replace(lexical, groups=(replace(neutral, scores={}, intervals={}),), gaps={})
    found = section_words("neutral", replace(whole, groupings=(few,)))
    assert f"Too few lexically neutral test utterances to score: {neutral.utterances}" in found
