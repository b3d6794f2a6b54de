"""The summary of the page: comparison, worth of the slots, warnings, few speakers, settings."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import recall_score

from pipeline.evaluation.slots import Difference
from pipeline.evaluation.statistics import ConfidenceInterval
from pipeline.report.evaluate import evaluate
from pipeline.report.page import section, view_of
from pipeline.report.records import Report
from pipeline.report.settings import Settings, settings_of
from pipeline.report.summary import best_probe, slot_title, slots_worth, verdict, warnings
from tests.support.runs.fake_run import FakeRun, rows_of
from tests.support.runs.pages import section_words


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Six dialogues, a text probe at chance, a perfect speech probe."""
    root = tmp_path_factory.mktemp("summary")
    fake = FakeRun(root, folds=3, speakers=12, each=20, facts=True, extras=True).write()
    return evaluate(fake.run, fake.data)


@pytest.fixture(scope="module")
def few(tmp_path_factory: pytest.TempPathFactory) -> tuple[FakeRun, Report]:
    """A test split of three speakers."""
    fake = FakeRun(tmp_path_factory.mktemp("few"), extras=True).write()
    return fake, evaluate(fake.run, fake.data)


def test_the_score_is_compared_with_the_best_probe_and_the_majority(report: Report) -> None:
    best = best_probe(report)
    assert best is not None
    assert best.slot == "speech"
    own, gain = report.summaries["uar"].value, best.gains["uar"]
    assert gain.value == pytest.approx(own - 1, abs=1e-12)
    assert gain.interval is not None
    assert gain.interval.low <= gain.value <= gain.interval.high < 0
    over = report.gains["uar"]
    assert over.value == pytest.approx(own - report.baselines.majority["uar"], abs=1e-12)
    assert over.interval is not None
    assert over.interval.low > 0
    found = section_words("summary", report)
    assert f"UAR {own:.3f} ." in found
    assert "The best linear probe, on speech alone, reaches 1.000: a loss" in found
    assert "Predicting the majority class reaches 0.250: a gain." in found


def test_a_difference_shows_a_gain_only_where_its_interval_lies_above_zero() -> None:
    ends = {(0.1, 0.3): "a gain", (-0.3, -0.1): "a loss", (-0.1, 0.3): "no gain shown"}
    for (low, high), expected in ends.items():
        assert verdict(Difference(0.1, ConfidenceInterval(low, high))) == expected


def test_each_slot_has_its_probe_and_the_change_without_it(report: Report) -> None:
    text, speech = slots_worth(report)
    assert (text.slot, text.without) == ("text", None)
    assert speech.without is not None
    assert speech.without.name == "without_speech"
    change = speech.without.differences["uar"].value
    assert f"−{abs(change):.3f}" in section_words("summary", report)
    assert slot_title(report.run, "text") == "text (tone)"
    slots = {"text": {"backbone": "b", "spec": {}, "provenance": {"layer": 2}}}
    assert slot_title(replace(report.run, slots=slots), "text") == "text (b, layer 2)"


def test_few_speakers_have_scores_of_their_own_and_no_interval(
    few: tuple[FakeRun, Report],
) -> None:
    fake, report = few
    assert report.intervals == {}
    assert {probe.gains["uar"].interval for probe in report.probes} == {None}
    rows, found = rows_of(fake), section_words("summary", report)
    assert len(report.cluster_scores) == 3
    for cluster in report.cluster_scores:
        of_seeds = []
        for seed in range(rows.seeds):
            keep = [
                rows.utterances[u].speaker == cluster.name and rows.seed[r] == seed
                for r, u in enumerate(rows.utterance)
            ]
            assert cluster.utterances == sum(keep)
            pair = rows.labels[keep], rows.predictions[keep]
            of_seeds.append(recall_score(*pair, labels=np.unique(pair[0]), average="macro"))
        mean = sum(of_seeds) / len(of_seeds)
        assert cluster.scores["uar"] == pytest.approx(mean, abs=1e-12)
        assert f"{cluster.name} {cluster.utterances} {cluster.scores['accuracy']:.3f}" in found
    assert "The test split has 3 speakers: too few to show a gain or a loss" in found
    assert "95 % interval" not in found
    assert "Only 3 speakers in the test split: too few for intervals (at least 5)" in found


def test_all_warnings_stand_in_one_place(report: Report) -> None:
    assert report.calibration is not None
    after = report.calibration.after
    assert after is not None
    worse = replace(report.calibration, after=replace(after, ece=1.0))
    card = {**report.card, "warnings": ["an odd table"], "differences": ["one"], "rejected": 3}
    head = {
        "warnings": ["text: holds no words"],
        "environment": {"dirty": True},
        "noticed": {"text": {"u0001": "cut at 512 tokens", "u0002": "cut at 512 tokens"}},
    }
    found = " | ".join(warnings(replace(report, card=card, calibration=worse), head))
    for part in (
        "Only 6 dialogues in the test split",
        "2 of 240 utterances, 2 of them in the test split, have no features in some slot",
        "Rejected when the corpus was prepared: 3 utterances.",
        "Of 2 utterances the features cover a part only. The most frequent reason is text: cut at",
        *("Temperature scaling makes the test probabilities worse: ", "ECE from 0"),
        *(
            "text: holds no words",
            "an odd table",
            "The corpus differs from what is published in 1 count",
        ),
        "The code had uncommitted changes",
    ):
        assert part in found
    better = replace(report.calibration, after=report.calibration.before)
    assert "Temperature" not in " ".join(warnings(replace(report, calibration=better), {}))


def test_settings_stand_beside_their_defaults(report: Report) -> None:
    train = {"epochs": 20, "lr": 1e-3, "betas": [0.9, 0.999], "new": None}
    run = replace(report.run, train=train, args={"d_model": 8, "dropout": 0.5})
    inputs, tuning = {"layer_norm": ["text"]}, {"keep": 3, "lora": {"rank": 8}, "slots": {}}
    found = settings_of(run, {"inputs": inputs})
    assert found.changed == (
        ("models.blend.args.d_model", "8", "512"),
        ("models.blend.inputs.layer_norm", '["text"]', "none"),
        *(("train.lr", "0.001", "5e-05"), ("train.new", "null", "none")),
    )
    of_args, *of_train = found.unchanged
    assert of_args == ("models.blend.args.dropout", "0.5")
    assert of_train == [("train.epochs", "20"), ("train.betas", "[0.9, 0.999]")]
    tuned = settings_of(replace(run, args={}, train={}, regime="e2e"), {"e2e": tuning})
    assert tuned == Settings((("e2e.keep", "3", "2"),), (("e2e.lora.rank", "8"),))


def test_a_model_whose_kind_is_gone_has_settings_without_defaults(report: Report) -> None:
    run = replace(report.run, kind="gone", args={"width": 8}, train={})
    assert settings_of(run, {}).changed == (("models.blend.args.width", "8", "none"),)


def test_what_is_rarely_read_is_folded(report: Report) -> None:
    assert "<details><summary>One-vs-rest accuracy" in section("scores", **view_of(report))
    assert "at the default, or off" in section_words("settings", report)
    alone = [replace(found, gaps={}) for found in report.groupings]
    markup = section("groups", **view_of(replace(report, groupings=tuple(alone))))
    assert "<summary>By gender: fewer than two groups" in markup
    assert "<h3>By gender" in section("groups", **view_of(report))
