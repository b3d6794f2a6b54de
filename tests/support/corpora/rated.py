"""Votes and attributes for a corpus that was prepared with classes alone."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from features.corpus.labels_folder import read_labelled
from features.corpus.manifest import Label
from features.corpus.ratings import Rating, write_ratings
from features.files.reading import file_sha256
from features.files.records import write_rows

SCALES = {"arousal": (1.0, 7.0), "valence": (1.0, 5.0)}
RATERS = 5


def ratings_of(label: Label, classes: Sequence[str]) -> list[Rating]:
    """What five raters say: the class decides, with noise, and two of them are contrary."""
    noise = np.random.default_rng(list(label.id.encode()))
    place = classes.index(label.class_name) / (len(classes) - 1)
    found = []
    for number in range(RATERS):
        far = place if number < 3 else 1 - place
        values = {
            name: float(np.clip(round(low + far * (high - low) + noise.normal()), low, high))
            for name, (low, high) in SCALES.items()
        }
        chosen = label.class_name if number < 4 else classes[0]
        found.append(Rating(label.id, f"r{number}", label=chosen, values=values))
    return found


def rate(folder: Path, gaps: int = 0) -> None:
    """Add votes, values and ratings below `data/<corpus>`; every `gaps`-th row lacks values."""
    card, labels = read_labelled(folder / "labels")
    classes, rated, ratings = card["classes"], [], []
    for number, label in enumerate(labels):
        own = ratings_of(label, classes)
        votes = dict.fromkeys(classes, 0.0)
        for rating in own:
            votes[str(rating.label)] += 1
        values = {
            name: float(np.mean([(rating.values or {})[name] for rating in own])) for name in SCALES
        }
        rated.append(
            dataclasses.replace(
                label,
                votes={name: count for name, count in votes.items() if count},
                values=None if gaps and number % gaps == 0 else values,
                gender=("female", "male")[number % 2],
            )
        )
        ratings += own
    write_rows(folder / "labels" / "labels.jsonl", rated)
    write_ratings(folder / "ratings", ratings)
    of = {"known": [{}] * int(card["folds"]), "mean": 3.0, "sd": 1.0}
    attributes = {name: {"low": low, "high": high, **of} for name, (low, high) in SCALES.items()}
    card["targets"] = {"tasks": ["classes", "votes", "attributes"], "attributes": attributes}
    card["labels_sha256"] = file_sha256(folder / "labels" / "labels.jsonl")
    (folder / "labels" / "card.json").write_text(json.dumps(card))
