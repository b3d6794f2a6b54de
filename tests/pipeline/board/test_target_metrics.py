"""Ranking by scores of attributes and votes: direction, ties by their tests, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from features.errors import ParamsError
from pipeline.board.rows import Row, ascends, check_metric
from pipeline.board.ties import judge
from pipeline.compare.sources import read_run
from tests.support.runs.fake_targets import FakeTargets


@pytest.mark.parametrize(
    ("metric", "lower"),
    [
        *(("rmse_valence", True), ("valid_jsd", True), ("nrmse_arousal", True), ("kld", True)),
        *(("train_mean_mae_arousal", True), ("prior_total_variation", True), ("soft_nll", True)),
        *(("probe_text_jsd", True), ("jsd_entropy_high", True), ("ccc_arousal_sd", True)),
        *(("ccc", False), ("ccc_valence", False), ("pearson_mae", False), ("maelstrom", False)),
        *(("multilabel_macro_f1", False), ("cosine", False), ("human_ccc_arousal", False)),
    ],
)
def test_less_of_an_error_is_better(metric: str, lower: bool) -> None:
    assert ascends(metric) == lower


@pytest.mark.parametrize(
    "metric", ["bias_arousal", "train_mean_bias_arousal", "clipped_valence", "rows_votes"]
)
def test_what_has_no_better_is_no_rank(metric: str) -> None:
    with pytest.raises(ParamsError, match=f"{metric}'.*neither more nor less of it is better"):
        check_metric([], metric)


def test_ties_are_judged_by_the_paired_test_of_the_score(tmp_path: Path) -> None:
    """A run that ranks lower and is better, by an error of which lower is better."""
    noises = {"a": 1.5, "b": 0.3}
    paths = {
        name: FakeTargets(
            tmp_path / name, tasks=("attributes",), noise=noise, speakers=24, folds=3
        ).write()
        for name, noise in noises.items()
    }
    for metric, value in (("ccc", 0.5), ("rmse_arousal", 1.0)):
        rows = [
            Row(name, name, "blend", "cached", "fake", {metric: value}, {}, ()) for name in paths
        ]
        best, found = judge(rows, metric, read=lambda rev: read_run(str(paths[rev].run)))
        assert best.best
        assert found.basis == "test"
        assert found.swapped == "12 dialogues"
        assert found.p is not None
        assert found.p < 0.05
        assert found.ahead
