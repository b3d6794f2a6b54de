"""Metrics against golden values, scikit-learn, and what must hold by definition."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn import metrics as oracle

from pipeline.metrics import classes as metrics
from tests.support.paths import DATA

GOLDEN: dict[str, Any] = json.loads((DATA / "golden/metrics.json").read_text(encoding="utf-8"))
SUMMARIES = {
    "accuracy_wa": metrics.accuracy,
    "uar_over_classes_present_in_labels": metrics.uar,
    "balanced_accuracy_score": metrics.uar,
    "weighted_f1": metrics.weighted_f1,
    "avg_binary_accuracy": metrics.ovr_accuracy,
    "binary_accuracy_per_class": metrics.ovr_accuracies,
    "avg_binary_weighted_f1": metrics.ovr_weighted_f1,
    "binary_weighted_f1_per_class": metrics.ovr_weighted_f1s,
}


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[int], list[int], int]:
    """Labels, predictions and K, with classes absent from either side more often than not."""
    classes = draw(st.integers(2, 9))
    pair = st.tuples(st.integers(0, classes - 1), st.integers(0, classes - 1))
    pairs = draw(st.lists(pair, min_size=1, max_size=40))
    return [label for label, _ in pairs], [guess for _, guess in pairs], classes


@pytest.mark.parametrize("case", GOLDEN)
def test_golden_confusion(case: str) -> None:
    given = GOLDEN[case]
    found = metrics.confusion(given["labels"], given["predictions"], given["num_classes"])
    assert found.tolist() == given["confusion_matrix_rows_true"]


@pytest.mark.parametrize("name", SUMMARIES)
@pytest.mark.parametrize("case", GOLDEN)
def test_golden_summaries(case: str, name: str) -> None:
    matrix = np.array(GOLDEN[case]["confusion_matrix_rows_true"])
    np.testing.assert_allclose(SUMMARIES[name](matrix), GOLDEN[case][name], rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["precision", "recall", "f1", "support"])
@pytest.mark.parametrize("case", GOLDEN)
def test_golden_per_class(case: str, name: str) -> None:
    found = metrics.per_class(np.array(GOLDEN[case]["confusion_matrix_rows_true"]))
    expected = GOLDEN[case]["per_class"][name]
    np.testing.assert_allclose(getattr(found, name), expected, rtol=0, atol=1e-12)


@given(problems())
def test_agrees_with_scikit_learn(problem: tuple[list[int], list[int], int]) -> None:
    """Also where a subset lacks classes: macro F1 is scikit-learn's without `labels`."""
    labels, predictions, classes = problem
    values = metrics.validation_scores(labels, predictions, classes)
    present = sorted(set(labels))
    assert tuple(values) == metrics.MONITORS
    assert values == pytest.approx(
        {
            "accuracy": oracle.accuracy_score(labels, predictions),
            # balanced_accuracy_score itself warns when a predicted class is absent from the labels
            "uar": oracle.recall_score(labels, predictions, labels=present, average="macro"),
            "macro_f1": oracle.f1_score(labels, predictions, average="macro"),
            "weighted_f1": oracle.f1_score(labels, predictions, average="weighted"),
        },
        abs=1e-12,
    )
    recall, f1 = metrics.class_values(metrics.confusion(labels, predictions, classes))
    held = {"labels": present, "average": None}
    np.testing.assert_allclose(recall[present], oracle.recall_score(labels, predictions, **held))
    np.testing.assert_allclose(f1[present], oracle.f1_score(labels, predictions, **held))
    assert (
        set(np.flatnonzero(~np.isnan(f1))) == set(np.flatnonzero(~np.isnan(recall))) == set(present)
    )


@given(problems(), st.integers(1, 7))
def test_means_over_seeds_and_swaps_do_not_make_classes(
    problem: tuple[list[int], list[int], int], parts: int
) -> None:
    """What is left of a class in floats, after fractions were added and taken away, is nothing."""
    whole = metrics.confusion(*problem).astype(np.float64)
    residue = whole + 0.1 / parts + 0.2 / parts - 0.3 / parts
    for name, value in metrics.scores(whole).items():
        assert metrics.scores(residue)[name] == pytest.approx(float(value), abs=1e-6)


@given(problems())
def test_a_perfect_subset_scores_one(problem: tuple[list[int], list[int], int]) -> None:
    labels, _, classes = problem
    assert set(metrics.validation_scores(labels, labels, classes).values()) == {1.0}


@given(problems())
def test_one_vs_rest_accuracy_is_accuracy_rescaled(
    problem: tuple[list[int], list[int], int],
) -> None:
    values = metrics.scores(metrics.confusion(*problem))
    rescaled = 1 - 2 * (1 - values["accuracy"]) / problem[2]
    assert values["ovr_accuracy"] == pytest.approx(rescaled, abs=1e-12)


@given(problems())
def test_one_vs_rest_f1_is_scikit_learns_weighted_one(
    problem: tuple[list[int], list[int], int],
) -> None:
    labels, predictions, classes = problem
    found = metrics.scores(metrics.confusion(*problem))["ovr_weighted_f1"]
    expected = [
        oracle.f1_score(
            np.equal(labels, k), np.equal(predictions, k), average="weighted", zero_division=0
        )
        for k in range(classes)
    ]
    assert found == pytest.approx(np.mean(expected), abs=1e-12)


@given(problems(), st.randoms())
def test_names_of_classes_do_not_matter(
    problem: tuple[list[int], list[int], int], random: Any
) -> None:
    labels, predictions, classes = problem
    renamed = list(range(classes))
    random.shuffle(renamed)
    before = metrics.validation_scores(labels, predictions, classes)
    after = metrics.validation_scores(
        [renamed[k] for k in labels], [renamed[k] for k in predictions], classes
    )
    assert before == pytest.approx(after, abs=1e-12)


def test_leading_axes_are_computed_at_once() -> None:
    matrices = np.random.default_rng(0).integers(0, 5, size=(3, 4, 6, 6))
    together = metrics.scores(matrices)
    for index in np.ndindex(3, 4):
        alone = metrics.scores(matrices[index])
        assert {name: values[index] for name, values in together.items()} == alone


def test_groups_add_up_to_the_whole() -> None:
    rng = np.random.default_rng(1)
    groups, labels, guesses = rng.integers(0, 4, size=(3, 50))
    parts = metrics.grouped_confusion(groups, 5, labels, guesses, 4)
    assert parts.shape == (5, 4, 4)
    assert parts[4].sum() == 0
    np.testing.assert_array_equal(parts.sum(0), metrics.confusion(labels, guesses, 4))
    alone = metrics.confusion(labels[groups == 2], guesses[groups == 2], 4)
    np.testing.assert_array_equal(parts[2], alone)


def test_nothing_scores_zero_rather_than_nan() -> None:
    empty = metrics.confusion([], [], 3)
    assert {float(value) for value in metrics.scores(empty).values()} == {0.0}


@pytest.mark.parametrize(
    ("labels", "predictions", "complaint"),
    [
        ([0, 3], [0, 0], "labels holds 0 to 3; expected integers from 0 to 2"),
        ([0, 1], [0, -1], "predictions holds -1 to 0; expected integers from 0 to 2"),
        ([0.0, 1.0], [0, 1], r"labels has shape \(2,\) and type float64; expected \[N\] integers"),
        ([0, 1], [0], "2 labels and 1 predictions; expected as many of each"),
    ],
)
def test_wrong_indices_are_refused(labels: Any, predictions: Any, complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        metrics.confusion(labels, predictions, 3)


@given(problems(), st.data())
def test_items_without_a_prediction_are_wrong_in_every_metric(
    problem: tuple[list[int], list[int], int], data: st.DataObject
) -> None:
    """As scikit-learn has it with a label that is not among `labels`: no class is invented."""
    labels, guesses, classes = problem
    some = data.draw(st.lists(st.booleans(), min_size=len(labels), max_size=len(labels)))
    given = [-1 if none else guess for guess, none in zip(guesses, some, strict=True)]
    matrix = metrics.confusion(labels, given, classes, abstains=True)
    assert matrix.shape == (classes, classes + 1)
    assert matrix.sum(1).tolist() == np.bincount(labels, minlength=classes).tolist()
    assert metrics.unanswered(matrix) == np.mean(some)
    assert metrics.row_shares(matrix)[labels[0]].sum() == pytest.approx(1)
    occurring = sorted({*labels, *given} - {-1})
    of = {"labels": occurring, "zero_division": 0}
    expected = {
        "accuracy": oracle.accuracy_score(labels, given),
        "uar": oracle.recall_score(
            labels, given, labels=sorted(set(labels)), average="macro", zero_division=0
        ),
        "macro_f1": oracle.f1_score(labels, given, average="macro", **of),
        "weighted_f1": oracle.f1_score(labels, given, average="weighted", **of),
    }
    truth, guess = np.array(labels), np.array(given)
    pairs = [(truth == k, guess == k) for k in range(classes)]
    expected["ovr_accuracy"] = np.mean([oracle.accuracy_score(*pair) for pair in pairs])
    expected["ovr_weighted_f1"] = np.mean(
        [oracle.f1_score(*pair, average="weighted", zero_division=0) for pair in pairs]
    )
    found = metrics.scores(matrix)
    assert {name: float(value) for name, value in found.items()} == pytest.approx(expected)
    each = metrics.per_class(matrix)
    known = oracle.precision_recall_fscore_support(
        labels, given, labels=list(range(classes)), zero_division=0
    )
    values = (each.precision, each.recall, each.f1, each.support)
    for value, wanted in zip(values, known, strict=True):
        np.testing.assert_allclose(value, wanted)


@given(problems())
def test_a_column_for_no_prediction_changes_nothing_where_it_is_empty(
    problem: tuple[list[int], list[int], int],
) -> None:
    narrow = metrics.scores(metrics.confusion(*problem))
    wide = metrics.scores(metrics.confusion(*problem, abstains=True))
    assert {k: float(v) for k, v in narrow.items()} == {k: float(v) for k, v in wide.items()}
