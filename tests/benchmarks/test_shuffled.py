"""Shuffling keeps class counts and splits, and the alarm separates a leak from chance."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from benchmarks.shuffled import chance_p, shuffled
from features.corpus.manifest import Label
from pipeline.evaluation.run_folder import RunFolder


def labels_of(count: int) -> list[Label]:
    splits = ["train", "train", "valid", "test"]
    return [
        Label(f"u{i}", "abc"[i % 3], f"s{i % 7}", splits=(splits[i % 4],)) for i in range(count)
    ]


def test_each_split_keeps_its_counts_and_its_utterances() -> None:
    labels = labels_of(120)
    found = shuffled(labels, 0)
    assert [(o.id, o.speaker, o.splits) for o in found] == [
        (o.id, o.speaker, o.splits) for o in labels
    ]
    counts = [Counter((o.splits, o.label) for o in each) for each in (labels, found)]
    assert counts[0] == counts[1]
    assert sum(a.label != b.label for a, b in zip(labels, found, strict=True)) > 40


def run_of(labels: Any, predictions: list[Any]) -> RunFolder:
    test = np.ones(len(labels), bool)
    jobs = [
        SimpleNamespace(seed=seed, fold=0, labels=labels, predictions=guess, test=test)
        for seed, guess in enumerate(predictions)
    ]
    run: Any = SimpleNamespace(
        path=Path(), classes=("a", "b", "c"), seeds=range(len(predictions)), folds=1, jobs=jobs
    )
    found: RunFolder = run
    return found


def test_a_leak_sounds_the_alarm_and_guesses_do_not() -> None:
    generator = np.random.default_rng(0)
    truth = generator.integers(0, 3, 120)
    leaking = np.where(generator.random(120) < 0.3, truth, generator.integers(0, 3, 120))
    assert chance_p(run_of(truth, [leaking, leaking]), 399) < 0.01
    values = [
        chance_p(run_of(generator.integers(0, 3, 60), [generator.integers(0, 3, 60)]), 99)
        for _ in range(60)
    ]
    assert 0.3 < float(np.mean(values)) < 0.7
