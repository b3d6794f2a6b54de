"""Comparisons by attributes and votes: scores, paired tests, and what is no comparison."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from features.corpus.manifest import read_labels
from features.errors import ParamsError, RunError
from pipeline.commands.compare import as_json, write_page
from pipeline.commands.join import check_folds
from pipeline.compare.comparison import Settings
from pipeline.compare.kinds import Comparisons, compare_any
from pipeline.compare.page import as_text
from pipeline.compare.sources import read_run
from pipeline.compare.target_sections import target_sections
from pipeline.evaluation.attributes.rows import AttributeRows, seed_mean
from pipeline.evaluation.rows import RunRows
from pipeline.evaluation.run_folder import RunFolder
from pipeline.report.evaluate import evaluate_any, write_report
from tests.support.runs.fake_run import FakeRun, edit_lines
from tests.support.runs.fake_targets import FakeTargets

FAST = Settings(permutations=500, flips=2)


@pytest.fixture(scope="module")
def fakes(tmp_path_factory: pytest.TempPathFactory) -> list[FakeTargets]:
    """A good model of two seeds, a worse one of three, and one of attributes alone."""
    root, of = tmp_path_factory.mktemp("runs"), {"folds": 3, "speakers": 24}
    return [
        FakeTargets(root / "good", **of).write(),  # type: ignore[arg-type]
        FakeTargets(root / "worse", noise=1.5, seeds=(3, 4, 5), **of).write(),  # type: ignore[arg-type]
        FakeTargets(root / "alone", tasks=("attributes",), **of).write(),  # type: ignore[arg-type]
    ]


@pytest.fixture(scope="module")
def both(fakes: list[FakeTargets]) -> Comparisons:
    return compare_any([str(fake.run) for fake in fakes[:2]], FAST)


def test_scores_are_those_of_the_report(fakes: list[FakeTargets], both: Comparisons) -> None:
    assert both.targets is not None
    for fake, run in zip(fakes, both.targets.runs, strict=False):
        known = {label.id: label for label in read_labels(fake.data)}
        folder = RunFolder.read(fake.run)
        data = AttributeRows.of(folder, RunRows.of(folder, known))
        expected = data.statistic(data.sums().sum(1))
        assert run.seeds == len(fake.seeds)
        for name in ("ccc", "ccc_arousal", "pearson_valence", "rmse_arousal"):
            assert run.scores[name].value == pytest.approx(seed_mean(expected[name]))


def test_a_worse_model_is_worse_by_paired_tests(both: Comparisons) -> None:
    """By units of speakers, seeds of both repeated to six; the votes are predicted as well."""
    assert both.targets is not None
    assert both.classes is not None
    (pair,) = both.targets.pairs
    assert set(pair.tests) == {"attributes", "votes"}
    change = pair.changes["ccc"]
    assert change.interval is not None
    assert change.value < change.interval.high < 0
    assert pair.p["ccc"] == pair.p_holm["ccc"] == pair.tests["attributes"].smallest
    assert pair.changes["rmse_arousal"].value > 0
    assert pair.p["jsd"] > 0.01
    text = as_text(target_sections(both.targets))
    assert "rmse_arousal (lower is better)" in text
    assert "There is no McNemar test" in text


def test_records_and_page_hold_every_kind(both: Comparisons, tmp_path: Path) -> None:
    content = json.loads(as_json(both))
    assert content["targets"]["attributes"] == ["arousal", "valence"]
    assert content["pairs"][0]["mcnemar"]
    write_page(tmp_path / "page.html", both)
    html = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "by attributes and votes" in html
    assert "by class" in html


def test_only_what_all_runs_learn_is_compared(fakes: list[FakeTargets]) -> None:
    found = compare_any([str(fakes[0].run), str(fakes[2].run)], FAST)
    assert found.classes is None
    assert found.targets is not None
    assert not found.targets.votes
    assert "jsd" not in found.targets.pairs[0].changes
    assert found.targets.pairs[0].changes["ccc"].interval is not None


def test_a_run_is_compared_with_itself_by_its_report(
    fakes: list[FakeTargets], tmp_path: Path
) -> None:
    fake = fakes[2]
    write_report(evaluate_any(fake.run, fake.data), tmp_path)
    for name in ("predictions.csv", "predictions.parquet"):
        one, other = read_run(str(fake.run)).targets, read_run(str(tmp_path / name)).targets
        np.testing.assert_array_equal(one.truth, other.truth)
        np.testing.assert_array_equal(one.values, other.values)
    found = compare_any([str(fake.run), str(tmp_path)], FAST).targets
    assert found is not None
    assert found.pairs[0].changes["ccc"].value == 0
    assert found.pairs[0].p["ccc"] == 1


def test_other_truth_is_refused(tmp_path: Path) -> None:
    one = FakeTargets(tmp_path / "a", tasks=("attributes",), seeds=(0,)).write()
    other = FakeTargets(tmp_path / "b", tasks=("attributes",), seeds=(0,)).write()
    k = one.columns.predictions.index("y_arousal")

    def change(lines: list[str]) -> list[str]:
        row = next(n for n, line in enumerate(lines) if ",test," in line and line.split(",")[k])
        cells = lines[row].split(",")
        lines[row] = ",".join([*cells[:k], "1.25", *cells[k + 1 :]])
        return lines

    edit_lines(other.predictions(), change)
    with pytest.raises(RunError, match=r"'u.*' is \[.*\] in A .* and \[1.25, .*expected the same"):
        compare_any([str(one.run), str(other.run)], FAST)


def test_nothing_in_common_is_refused(fakes: list[FakeTargets], tmp_path: Path) -> None:
    classes = FakeRun(tmp_path, speakers=24, each=20, folds=3).write()
    with pytest.raises(
        ParamsError, match=r"no target in common .*A .*: arousal, valence; B .*: cl"
    ):
        compare_any([str(fakes[2].run), str(classes.run)], FAST)


def test_few_clusters_are_swapped_whole_and_limit_p(tmp_path: Path) -> None:
    fakes = [
        FakeTargets(tmp_path / str(noise), tasks=("attributes",), noise=noise, speakers=15).write()
        for noise in (0.4, 1.2)
    ]
    names = [str(fake.run) for fake in fakes]
    found = compare_any(names, replace(FAST, all_pairs=True)).targets
    assert found is not None
    test = found.pairs[0].tests["attributes"]
    assert (test.unit, test.units, test.smallest) == ("speaker", 5, 2**-4)
    assert f"{test.units} differing {test.unit}s are " in as_text(target_sections(found))


def test_runs_with_other_targets_are_not_joined(fakes: list[FakeTargets]) -> None:
    with pytest.raises(RunError, match="learns votes or attributes; expected runs that learn cl"):
        check_folds([read_run(str(fake.run)) for fake in fakes[:2]])
