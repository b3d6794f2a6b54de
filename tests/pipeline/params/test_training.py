"""Settings of `train` that contradict each other are refused with what to do."""

from __future__ import annotations

from typing import Any

import pytest

from features.errors import ParamsError
from pipeline.params.training import TrainParams, monitors_of

ATTRIBUTES: dict[str, Any] = {"targets": ["attributes"], "monitor": "ccc"}
VOTES: dict[str, Any] = {"targets": ["votes"], "monitor": "jsd"}
BOTH: dict[str, Any] = {"targets": ["classes", "attributes"]}


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"targets": []}, r"train.targets: given \[\]; expected classes, votes or attributes"),
        ({"targets": ["gender"]}, "expected classes, votes or attributes among them"),
        ({"targets": ["votes", "votes"]}, "each once"),
        (
            {"targets": ["attributes"]},
            r"monitor: given 'weighted_f1' .*one of \['ccc', 'loss', 'last'\] or ccc_<",
        ),
        ({"monitor": "ccc"}, r"monitor: given 'ccc' .*\['accuracy', 'uar', 'macro_f1', 'weighted"),
        ({"monitor": "joint"}, "monitor: given 'joint'"),
        (VOTES | {"monitor": "ccc_valence"}, "monitor: given 'ccc_valence'"),
        (
            ATTRIBUTES | {"attributes": ["a"], "monitor": "ccc_b"},
            r"one of \['ccc', 'ccc_a', 'loss', 'last'\]$",
        ),
        (ATTRIBUTES | {"attributes": ["a", "a"]}, r"attributes: given \['a', 'a'\]; expected each"),
        ({"monitor": "ccc_"}, r"train.monitor: .*begins with 'ccc_'"),
        (ATTRIBUTES | {"mixup": 0.1}, "mixup: given 0.1 with the loss ccc .*attribute_loss: mse"),
        (ATTRIBUTES | {"sampler": "balanced"}, "sampler: given 'balanced' .*set `sampler: none`"),
        (VOTES | {"vote_shares": "raters"}, "vote_shares: .*sum to 1; .*multilabel_bce"),
        (
            VOTES | {"vote_loss": "reversed_kl"},
            "train.vote_loss: given 'reversed_kl'; expected one",
        ),
        (
            {"targets": ["classes", "votes"], "vote_loss": "multilabel_bce"},
            "vote_loss: given 'multilabel_bce' beside the target classes",
        ),
        ({"targets": ["classes", "votes"], "mixup": 0.2}, "mixup: .*share their outputs"),
        (BOTH | {"task_weights": {"votes": 1}}, "task_weights: given 'votes'; expected some of"),
        (BOTH | {"task_weights": {"classes": -1}}, "train.task_weights: given"),
        ({"plateau_factor": 1.0}, "train.plateau_factor: given 1.0"),
        ({"plateau_patience": -1}, "train.plateau_patience: given -1"),
        ({"weighting": "uncertainty"}, "weighting: .*two targets or more"),
        (
            BOTH | {"weighting": "uncertainty", "task_weights": {"classes": 2}},
            "weighting: given 'uncertainty' with task_weights",
        ),
    ],
)
def test_contradictions_are_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(ParamsError, match=said):
        TrainParams(**given)


def test_all_contradictions_are_told_at_once() -> None:
    with pytest.raises(ParamsError, match=r"(?s)monitor: .*\n.*sampler: "):
        TrainParams(targets=("attributes",), sampler="balanced")


@pytest.mark.parametrize(
    "given",
    [
        ATTRIBUTES | {"monitor": "ccc_anything"},
        VOTES | {"monitor": "loss"},
        VOTES | {"monitor": "last"},
        ATTRIBUTES | {"attribute_loss": "mse", "mixup": 0.4},
        VOTES | {"vote_loss": "multilabel_bce", "vote_shares": "raters"},
        BOTH | {"monitor": "joint", "sampler": "balanced"},
        {"targets": ["votes", "gender"], "weighting": "uncertainty"},
    ],
)
def test_what_fits_is_accepted(given: dict[str, Any]) -> None:
    TrainParams(**given)


def test_the_default_weight_of_the_gender_is_a_tenth() -> None:
    params = TrainParams(
        targets=("classes", "attributes", "gender"), task_weights={"attributes": 3}
    )
    assert [params.weight(each) for each in params.targets] == [1.0, 3.0, 0.1]


def test_what_is_said_of_classes_alone_is_what_was_said_before() -> None:
    """The field `train` of run.json gains nothing."""
    before = TrainParams(targets=("classes",), estimator="ewe").to_dict()
    assert list(before)[-1] == "patience"
    assert TrainParams(**before) == TrainParams()
    after = TrainParams(**BOTH).to_dict()
    assert TrainParams(**after) == TrainParams(**BOTH)


def test_metrics_are_in_the_order_of_history() -> None:
    assert monitors_of(["votes"], [])[-3:] == ["jsd", "kld", "multilabel_f1"]
    assert monitors_of(["attributes", "classes"], ["a"])[-3:] == ["ccc", "ccc_a", "joint"]


def test_settings_that_were_constants_are_recorded_where_they_differ_from_them() -> None:
    assert not {"plateau_factor", "plateau_patience"} & TrainParams().to_dict().keys()
    changed = TrainParams(plateau_factor=0.1, plateau_patience=5).to_dict()
    assert (changed["plateau_factor"], changed["plateau_patience"]) == (0.1, 5)
    assert TrainParams(**changed).to_dict() == changed
