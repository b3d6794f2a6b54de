"""Chance-level baselines against the sum over all guesses, drawn guesses and scikit-learn."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn import metrics as oracle
from sklearn.dummy import DummyClassifier

from features.errors import RunError
from pipeline.evaluation.baselines import baselines, expected_scores
from pipeline.metrics.classes import MONITORS, confusion, scores, validation_scores

Floats = NDArray[np.float64]


def enumerated(guess: Floats, test: Floats) -> dict[str, float]:
    """The expectation as a sum over every sequence of guesses, weighted by its probability."""
    size = test.shape[1]
    folds, labels = [], []
    for fold, row in enumerate(test.astype(int)):
        labels += [k for k in range(size) for _ in range(row[k])]
        folds += [fold] * row.sum()
    found: dict[str, float] = {}
    for guesses in itertools.product(range(size), repeat=len(labels)):
        chance = np.prod([guess[f, k] for f, k in zip(folds, guesses, strict=True)])
        for name, value in scores(confusion(labels, list(guesses), size)).items():
            found[name] = found.get(name, 0.0) + float(chance * value)
    return found


@pytest.mark.parametrize(
    ("guess", "test"),
    [
        ([[0.5, 0.5]], [[4, 3]]),
        ([[0.9, 0.1]], [[2, 5]]),
        ([[0.2, 0.8], [0.7, 0.3]], [[3, 1], [1, 2]]),
        ([[0.2, 0.5, 0.3], [0, 0.5, 0.5]], [[2, 1, 1], [1, 1, 0]]),
    ],
)
def test_expectations_equal_the_sum_over_all_guesses(
    guess: list[list[float]], test: list[list[int]]
) -> None:
    shares, counts = np.array(guess, float), np.array(test, float)
    found = expected_scores(shares, counts)
    for name, value in enumerated(shares, counts).items():
        assert found[name] == pytest.approx(value, abs=1e-12)


def test_a_class_that_the_labels_lack_counts_where_it_is_guessed() -> None:
    """The mean's divisor is random then; its expectation is taken, which is near for few items."""
    guess, test = np.array([[0.3, 0.2, 0.5]]), np.array([[3.0, 0, 4]])
    found = expected_scores(guess, test)
    expected = enumerated(guess, test)
    assert found.pop("macro_f1") == pytest.approx(expected.pop("macro_f1"), abs=0.02)
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-12)
    never = np.array([[0.4, 0, 0.6]])
    assert expected_scores(never, test)["macro_f1"] == pytest.approx(
        enumerated(never, test)["macro_f1"], abs=1e-12
    )


@pytest.mark.parametrize("support", [[200.0, 40, 80], [200.0, 0, 80]])
def test_expectations_equal_the_mean_of_drawn_guesses(support: list[float]) -> None:
    rng = np.random.default_rng(0)
    train, test = np.array([[60.0, 30, 10]]), np.array([support])
    labels = np.repeat([0, 1, 2], test[0].astype(int))
    drawn = [
        validation_scores(labels, rng.choice(3, len(labels), p=train[0] / 100), 3)
        for _ in range(2000)
    ]
    found = baselines(train, test, ("a", "b", "c")).prior
    for name in MONITORS:
        values = [each[name] for each in drawn]
        error = np.std(values) / np.sqrt(len(values))
        assert abs(found[name] - np.mean(values)) < 4 * error


def test_chance_is_one_in_k() -> None:
    found = baselines(np.array([[9.0, 1, 0, 0]]), np.array([[3.0, 7, 1, 0]]), "abcd").chance
    assert found["accuracy"] == pytest.approx(0.25, abs=1e-12)
    assert found["uar"] == pytest.approx(0.25, abs=1e-12)
    # LPGNet's metric makes chance look good
    assert found["ovr_accuracy"] == pytest.approx(0.625, abs=1e-12)


def test_the_majority_is_scikit_learns_dummy() -> None:
    rng = np.random.default_rng(2)
    train, test = rng.choice(3, 50, p=[0.2, 0.5, 0.3]), rng.choice(3, 40)
    dummy = DummyClassifier(strategy="most_frequent").fit(np.zeros((50, 1)), train)
    guesses = dummy.predict(np.zeros((40, 1)))
    trained, tested = (np.bincount(side, minlength=3)[None].astype(float) for side in (train, test))
    found = baselines(trained, tested, ("a", "b", "c"))
    assert found.majority_classes == ("b",)
    assert found.majority["accuracy"] == oracle.accuracy_score(test, guesses)
    weighted = oracle.f1_score(test, guesses, average="weighted", zero_division=0)
    assert found.majority["weighted_f1"] == pytest.approx(weighted, abs=1e-12)


def test_a_fold_without_training_utterances_is_refused() -> None:
    with pytest.raises(RunError, match=r"no training utterances in fold 1.*`dvc repro`"):
        baselines(np.array([[1.0, 1], [0, 0]]), np.ones((2, 2)), ("a", "b"))
