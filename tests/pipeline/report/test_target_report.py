"""Reports of runs that learn attributes, votes, or these beside classes."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from features.corpus.manifest import Label, read_labels
from features.errors import RunError
from features.files.records import write_rows
from pipeline.evaluation.identity import KEYS, RunIdentity
from pipeline.evaluation.predictions import read_predictions
from pipeline.evaluation.run_folder import RunFolder
from pipeline.report.evaluate import evaluate, evaluate_any, write_report
from pipeline.report.metrics_json import headline, read_all, read_metrics
from pipeline.report.targets.page import target_section
from pipeline.report.targets.record import TargetReport
from tests.pipeline.report.test_page import Document
from tests.support.runs.fake_run import FakeRun, edit_json
from tests.support.runs.fake_targets import FakeTargets
from tests.support.runs.pages import words

TASKS = [("classes", "votes", "attributes"), ("attributes",), ("votes",), ("classes", "attributes")]


def report_of(fake: FakeRun) -> TargetReport:
    found = evaluate_any(fake.run, fake.data)
    assert isinstance(found, TargetReport)
    return found


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> TargetReport:
    """All targets, three folds, speakers enough for intervals."""
    folder = tmp_path_factory.mktemp("whole")
    return report_of(FakeTargets(folder, folds=3, facts=True, speakers=18).write())


@pytest.mark.parametrize("tasks", TASKS, ids="+".join)
def test_files_of_a_report_are_read_back(tmp_path: Path, tasks: tuple[str, ...]) -> None:
    fake = FakeTargets(tmp_path, tasks=tasks).write()
    report = report_of(fake)
    reports = write_report(report, tmp_path / "reports").parent
    assert read_all(reports).keys() == {*KEYS, *report.metrics}
    shown = read_metrics(reports / "metrics.json")
    table = headline(read_all(reports))
    for task, key in {"classes": "macro_f1", "attributes": "ccc", "votes": "jsd"}.items():
        assert (key in shown) == (task in tasks)
        assert (f"rows_{task}" in shown) == (task in tasks)
        assert task not in tasks or f"\n{key} " in table
    csv, parquet = (read_predictions(reports / f"predictions.{end}") for end in ("csv", "parquet"))
    assert csv.to_pydict() == parquet.to_pydict()
    assert (reports / "history.csv").read_text(encoding="utf-8").startswith("seed,fold,epoch,")
    assert (reports / "confusion.csv").read_text(encoding="utf-8").startswith("label,prediction")
    html = (reports / "index.html").read_text(encoding="utf-8")
    assert Document(html).tags["table"] > 3  # and all elements are closed in order
    ids = re.findall(r'<section id="(\w+)">', html)
    assert ("attributes" in ids) == ("attributes" in tasks)
    assert ("votes" in ids) == ("votes" in tasks)
    assert ("classes" in ids) == (tasks != ("attributes",))
    assert not re.search(r">\s*(None|nan|Undefined)", html)


def test_metrics_hold_every_number_of_a_target(whole: TargetReport) -> None:
    found = whole.metrics
    for name in ("ccc", "ccc_arousal", "pearson_valence", "rmse_arousal", "jsd", "soft_nll"):
        for end in ("", "_low", "_high", "_sd", "_fold_mean", "_fold_sd"):
            assert f"{name}{end}" in found
    for name in (
        *("train_mean_rmse_arousal", "nrmse_arousal", "clipped_valence", "valid_ccc_arousal"),
        *("prior_jsd", "uniform_kld", "jsd_entropy_unanimous", "valid_jsd", "soft_temperature"),
        *("probe_speech_ccc", "condition_without_speech_ccc_delta", "condition_without_speech_jsd"),
        *("human_ccc_arousal", "human_accuracy", "alpha_classes", "rows_attributes", "rows_votes"),
        *("rows_classes", "macro_f1", "ece", "majority_uar", "parameters", "shared_speakers"),
    ):
        assert name in found
    assert "alpha_valence" not in found  # undefined
    assert "bias_fold_mean" not in found
    assert found["rows"] > max(found[f"rows_{task}"] for task in whole.tasks)
    assert found["nrmse_arousal"] == pytest.approx(found["rmse_arousal"] / 6, abs=1e-6)


def test_what_is_undefined_has_no_key(tmp_path: Path) -> None:
    """Predictions without spread: Pearson's correlation is undefined, the CCC 0."""
    fake = FakeTargets(tmp_path, tasks=("attributes",), pull=0.0, noise=0.0).write()
    report = report_of(fake)
    found = report.metrics
    assert found["ccc"] == found["ccc_arousal"] == 0
    assert "pearson_arousal" not in found
    assert " nan" not in words(target_section("attributes", report)).lower()


def test_the_page_says_what_its_numbers_are(whole: TargetReport) -> None:
    summary = words(target_section("summary", whole))
    assert "they are not to be added up" in summary
    assert "no agreement: keep" in summary
    assert "A model may exceed it, since it is compared with the mean of all raters" in summary
    attributes = words(target_section("attributes", whole))
    assert "mean of the training split" in attributes
    assert "a rater, against the others" in attributes
    assert "They are two quantities" in attributes
    votes = words(target_section("votes", whole))
    assert "not a mean over batches" in votes
    assert "unanimous" in votes


def test_runs_with_other_targets_are_no_table(tmp_path: Path) -> None:
    """Nor are those with other truth."""
    hashes = set()
    for k, tasks in enumerate(TASKS):
        fake = FakeTargets(tmp_path / str(k), tasks=tasks).write()
        run, labels = RunFolder.read(fake.run), read_labels(fake.data)
        hashes.add(RunIdentity.of_run(run, labels, "").test_sha256)
        values = {"arousal": 1.5, "valence": 1.5}
        other = [replace(label, values=values, votes={"sad": 1.0}) for label in labels]
        assert RunIdentity.of_run(run, other, "").test_sha256 not in hashes
    assert len(hashes) == len(TASKS)


def test_a_run_of_classes_does_not_see_what_else_a_corpus_holds(tmp_path: Path) -> None:
    """Votes, attributes, and utterances that have these alone change none of its numbers."""
    fake = FakeRun(tmp_path).write()
    labels = list(read_labels(fake.data))
    before = evaluate(fake.run, fake.data)
    edit_json(fake.data / "card.json", targets=FakeTargets(tmp_path).card(labels)["targets"])
    more = [replace(label, values={"arousal": 3.5}, votes={"sad": 2.0}) for label in labels]
    more.append(Label("extra", None, "speaker 0", splits=("test",), values={"arousal": 1.0}))
    write_rows(fake.data / "labels.jsonl", more)
    after = evaluate(fake.run, fake.data)
    assert after.metrics == before.metrics
    identities = [RunIdentity.of_run(of.run, of.labels, "") for of in (before, after)]
    assert identities[0] == identities[1]


def test_what_is_about_classes_alone_refuses_other_runs(tmp_path: Path) -> None:
    fake = FakeTargets(tmp_path, tasks=("attributes",), speakers=6).write()
    with pytest.raises(RunError, match=r"learns \['attributes'\]; expected a run that learns cl"):
        evaluate(fake.run, fake.data)
