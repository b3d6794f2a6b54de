"""Samplers: class shares as the formulas say, exactly and in what is drawn."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest

from features.corpus.manifest import Label
from pipeline.training.sampling import class_counts, draw, sampler_weights

CLASSES = ["calm", "angry", "sad"]
LABELS = [
    Label(f"u{i}", name, "s")
    for i, name in enumerate(["calm"] * 700 + ["angry"] * 200 + ["sad"] * 100)
]
COUNTS = np.array([700, 200, 100])


def shares(sampler: Any, done: int, epochs: int = 20) -> list[float]:
    """Expected share of each class in an epoch."""
    mass = COUNTS * sampler_weights(sampler, COUNTS, done=done, epochs=epochs)
    return [float(value) for value in mass / mass.sum()]


def test_counts_are_of_all_classes() -> None:
    assert class_counts(LABELS, [*CLASSES, "bored"]).tolist() == [700, 200, 100, 0]


def test_balanced_draws_all_classes_alike() -> None:
    for done in (0, 19):
        assert shares("balanced", done) == pytest.approx([1 / 3] * 3)


def test_schedules_start_at_opposite_ends() -> None:
    assert shares("to_uniform", 0) == pytest.approx([1 / 3] * 3)
    assert shares("to_distribution", 0) == pytest.approx([0.7, 0.2, 0.1])


def test_schedules_interpolate_the_weights() -> None:
    """By r = epoch / epochs, epochs from 0: (1 - r) w + r, and (1 - r) + r w."""
    w = np.array([1000 / 700, 5.0, 10.0])
    for done in (0, 5, 19):
        r = done / 20
        found = sampler_weights("to_uniform", COUNTS, done=done, epochs=20)
        assert np.allclose(found, (1 - r) * w + r)
        found = sampler_weights("to_distribution", COUNTS, done=done, epochs=20)
        assert np.allclose(found, (1 - r) + r * w)


@pytest.mark.parametrize("sampler", ["balanced", "to_uniform", "to_distribution"])
def test_draws_with_replacement_in_these_shares(sampler: Any) -> None:
    generator = np.random.default_rng(0)
    weights = sampler_weights(sampler, COUNTS, done=10, epochs=20)
    drawn = [label for _ in range(20) for label in draw(LABELS, CLASSES, weights, generator)]
    assert len(drawn) == 20 * len(LABELS)
    counts = Counter(label.label for label in drawn)
    for name, share in zip(CLASSES, shares(sampler, 10), strict=True):
        assert counts[name] / len(drawn) == pytest.approx(share, abs=0.01)
    once = draw(LABELS, CLASSES, weights, generator)
    assert max(Counter(label.id for label in once).values()) > 1


def test_draws_repeat_with_the_generator() -> None:
    weights = np.ones(3)
    first, again = (draw(LABELS, CLASSES, weights, np.random.default_rng(3)) for _ in range(2))
    assert first == again
