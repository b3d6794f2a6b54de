"""Methods against formulas written out, and member searches against trying everything."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from features.errors import ParamsError
from pipeline.ensemble.methods import Validation, mean, on_test, on_validation, parts, vote
from pipeline.ensemble.search import search


def panel(seed: int, members: int = 3, rows: int = 40, classes: int = 4) -> Any:
    return np.random.default_rng(seed).dirichlet(np.ones(classes), (members, rows))


@given(st.integers(0, 10_000), st.lists(st.integers(0, 3), min_size=3, max_size=3).filter(any))
def test_mean_and_votes_by_hand(seed: int, counts: list[int]) -> None:
    """A member that counts twice is as good as two."""
    probabilities, weights = panel(seed, rows=6), np.array(counts)
    repeated = [p for p, count in zip(probabilities, counts, strict=True) for _ in range(count)]
    averaged = sum(repeated) / len(repeated)
    found = mean(probabilities, weights)
    np.testing.assert_allclose(found.probabilities, averaged, rtol=1e-12)
    assert found.predictions.tolist() == found.probabilities.argmax(1).tolist()

    found = vote(probabilities, weights)
    for row in range(6):
        ballots = [int(p[row].argmax()) for p in repeated]
        shares = [ballots.count(k) / len(ballots) for k in range(4)]
        np.testing.assert_allclose(found.probabilities[row], shares, rtol=1e-12)
        most = [k for k in range(4) if shares[k] == max(shares)]
        likeliest = max(most, key=lambda k: float(averaged[row, k]))
        assert found.predictions[row] == likeliest


def test_of_equal_votes_and_equal_means_the_first_class_wins() -> None:
    opposed = np.array([[[0.0, 0.75, 0.25]], [[0.0, 0.25, 0.75]]])
    assert vote(opposed, np.ones(2, int)).predictions.tolist() == [1]
    surer = np.array([[[0.0, 0.75, 0.25]], [[0.0, 0.125, 0.875]]])
    assert vote(surer, np.ones(2, int)).predictions.tolist() == [2]


@given(st.integers(0, 10_000), st.permutations(range(3)))
def test_the_order_of_members_decides_nothing(seed: int, order: list[int]) -> None:
    probabilities, weights = panel(seed), np.array([2, 1, 1])
    for method in (mean, vote):
        one, other = method(probabilities, weights), method(probabilities[order], weights[order])
        np.testing.assert_allclose(one.probabilities, other.probabilities, atol=1e-12)


def test_one_member_is_itself_to_the_last_bit() -> None:
    probabilities = panel(1)
    found = mean(probabilities, np.array([0, 3, 0]))
    assert found.probabilities.tobytes() == probabilities[1].tobytes()


def labelled(seed: int, rows: int = 60, speakers: int = 6) -> Validation:
    """Two members who see half of the labels, and one who guesses."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 4, rows)
    probabilities = panel(seed, rows=rows)
    for member in (0, 1):
        seen = rng.random(rows) < 0.5
        probabilities[member][seen] += 4 * np.eye(4)[labels[seen]]
    probabilities /= probabilities.sum(-1, keepdims=True)
    return Validation(probabilities, labels, [f"s{row % speakers}" for row in range(rows)])


def test_stacking_is_the_regression_on_all_validation_rows() -> None:
    rows, tested = labelled(3), panel(9)
    found = on_test("stacking", rows, tested, np.array([1, 0, 2]))
    inputs = [np.concatenate([p[0], p[2]], axis=1) for p in (rows.probabilities, tested)]
    model = LogisticRegression(C=1.0, max_iter=1000).fit(inputs[0], rows.labels)
    np.testing.assert_allclose(found.probabilities, model.predict_proba(inputs[1]), atol=1e-12)
    assert found.predictions.tolist() == model.predict(inputs[1]).tolist()


def test_stacking_predicts_no_speaker_by_rows_of_that_speaker() -> None:
    rows = labelled(4)
    weights = np.ones(3, int)
    honest = on_validation("stacking", rows, weights)
    for part in parts(rows.speakers):
        # Other labels of a part change nothing that is predicted for it.
        other = rows.labels.copy()
        other[part] = (other[part] + 1) % 4
        changed = Validation(rows.probabilities, other, rows.speakers)
        found = on_validation("stacking", changed, weights)
        assert found.probabilities[part].tobytes() == honest.probabilities[part].tobytes()
        speakers = np.array(rows.speakers)
        assert not set(speakers[part]) & set(speakers[~part])


def test_stacking_of_one_class_or_one_speaker_works() -> None:
    rows = labelled(5, speakers=1)
    assert len(parts(rows.speakers)) == 5
    alone = Validation(rows.probabilities, np.full(60, 2), rows.speakers)
    found = on_test("stacking", alone, panel(6), np.ones(3, int))
    assert set(found.predictions.tolist()) == {2}


@pytest.mark.parametrize("how", ["greedy", "exhaustive"])
def test_a_search_takes_the_best_that_it_tried(how: str) -> None:
    """Scores by ensemble are drawn; what was tried last, or scores as much, does not win."""
    rng = np.random.default_rng(2)
    drawn: dict[tuple[int, ...], float] = {}

    def score(weights: Any) -> float:
        return drawn.setdefault(tuple(weights.tolist()), float(rng.integers(0, 8)))

    best = tuple(search(how, 4, 3, score).tolist())
    assert drawn[best] == max(drawn.values())
    assert sum(best) == min(sum(bag) for bag, value in drawn.items() if value == drawn[best])
    if how == "exhaustive":
        assert set(drawn) == {bag for bag in product((0, 1), repeat=4) if 1 <= sum(bag) <= 3}
    else:  # each step adds one member to the best of the last step, with replacement
        assert len([bag for bag in drawn if sum(bag) == 1]) == 4
        assert any(2 in bag for bag in drawn)


def test_greedy_repeats_a_member_where_that_is_better() -> None:
    target = np.array([2, 1, 0])
    best = search("greedy", 3, 10, lambda w: -float(np.abs(w / w.sum() - target / 3).sum()))
    assert best.tolist() == [2, 1, 0]


def test_an_exhaustive_search_has_a_bound() -> None:
    with pytest.raises(ParamsError, match="12 members have 4095 sets of at most 12; expect"):
        search("exhaustive", 12, 12, lambda _: 0.0)
    assert search("none", 12, 12, lambda _: 0.0).tolist() == [1] * 12
