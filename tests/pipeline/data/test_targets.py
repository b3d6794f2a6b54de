"""Votes, values and genders of labels as numbers; what is unknown stays unknown."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from features.corpus.manifest import Label
from pipeline.data.targets import TargetReader, true_votes
from pipeline.model.batch import UNSCORED
from pipeline.model.outputs import GENDERS, Outputs

OUTPUTS = Outputs(
    ("calm", "angry", "sad"),
    ("valence", "arousal"),
    GENDERS,
    {"valence": (1, 7), "arousal": (1, 5)},
)
ALL = TargetReader(("classes", "votes", "attributes", "gender"), OUTPUTS)
ROWS = [
    Label("a", "calm", "s", "d", 0, votes={"calm": 3, "sad": 1}, votes_outside=1, gender="male"),
    Label("b", None, "s", "d", 1, values={"arousal": 2.0}, gender="other"),
    Label("c", "sad", "t", "e", 0, values={"arousal": 5, "valence": 1}, secondary={"calm": 2}),
]


def test_what_is_unknown_is_nan_and_what_has_no_class_is_unscored() -> None:
    found = ALL.read(ROWS)
    assert found.labels.tolist() == [0, UNSCORED, 2]
    assert found.shares is not None
    assert found.shares[0].tolist() == [0.75, 0, 0.25]
    assert found.shares[1:].isnan().all()
    assert found.values is not None
    # By name: the label's own order of attributes says nothing.
    assert found.values[1].isnan().tolist() == [True, False]
    assert found.values[1:].nan_to_num(-1).tolist() == [[-1, 0.25], [0, 1]]
    assert found.genders is not None
    assert found.genders.nan_to_num(-1).tolist() == [[0, 1], [-1, -1], [-1, -1]]
    assert [ALL.learns_from(row) for row in ROWS] == [True, True, True]
    of_votes = TargetReader(("votes",), OUTPUTS)
    assert [of_votes.learns_from(row) for row in ROWS] == [True, False, False]
    assert of_votes.read(ROWS).labels.tolist() == [UNSCORED] * 3


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, [0.75, 0, 0.25]),
        ({"vote_shares": "raters"}, [0.6, 0, 0.2]),
        ({"secondary_weight": 0.5}, [0.75, 0, 0.25]),
    ],
)
def test_shares_of_votes(settings: dict[str, object], expected: list[float]) -> None:
    reader = TargetReader(("votes",), OUTPUTS, **settings)  # type: ignore[arg-type]
    assert reader.votes(ROWS[:1])[0].tolist() == pytest.approx(expected)


def test_secondary_choices_count_beside_votes_and_alone_are_none() -> None:
    reader = TargetReader(("votes",), OUTPUTS, secondary_weight=0.5)
    beside = Label("x", None, "s", votes={"angry": 2}, secondary={"sad": 2, "calm": 2})
    assert reader.votes([beside])[0].tolist() == [0.25, 0.5, 0.25]
    assert np.isnan(reader.votes(ROWS[2:])).all()
    # A model is scored on what the raters chose, whatever it was trained on.
    assert true_votes([beside], OUTPUTS.classes).tolist() == [[0, 2, 0]]


def test_a_class_stands_for_votes_only_where_that_is_asked_for() -> None:
    reader = TargetReader(("classes", "votes"), OUTPUTS, votes_missing="label")
    assert reader.votes(ROWS)[2].tolist() == [0, 0, 1]
    assert np.isnan(reader.votes(ROWS)[1]).all()
    assert np.isnan(true_votes(ROWS, OUTPUTS.classes)[2]).all()


def test_dialogues_hold_their_turns_and_nothing_at_padding() -> None:
    found = ALL.read_dialogues([ROWS[:2], ROWS[2:]])
    assert found.present.tolist() == [[True, True], [True, False]]
    assert found.labels.tolist() == [[0, UNSCORED], [2, UNSCORED]]
    flat = ALL.read(ROWS)
    assert found.whole is not None
    for name in ("shares", "values", "genders"):
        one, other = getattr(found.scored(), name), getattr(flat, name)
        assert torch.equal(one.nan_to_num(-1), other.nan_to_num(-1))
        assert getattr(found, name)[1, 1].isnan().all()
    assert found.places is not None
    assert found.places.tolist() == [[0, 1], [2, UNSCORED]]
    assert len(found.whole) == 3


def test_a_row_is_used_for_an_attribute_that_is_learnt() -> None:
    valence = Outputs((), ("valence",), (), {"valence": (1, 7)})
    reader = TargetReader(("attributes",), valence)
    assert [reader.learns_from(row) for row in ROWS] == [False, False, True]
    found = reader.read(ROWS).values
    assert found is not None
    assert math.isnan(float(found[1, 0]))
