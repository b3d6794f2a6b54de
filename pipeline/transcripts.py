"""Finds the labels of the corpus that runs were tested on, for their transcripts."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from features.errors import HeronryError
from features.manifest import Label, read_labels
from pipeline.run_sources import PredictedRun


def known_labels(runs: Sequence[PredictedRun], data: Path = Path("data")) -> dict[str, Label]:
    """Labels by id; empty if there are none, since transcripts are an extra.

    Predictions alone do not say which corpus they are of. So every `labels` folder is tried, those
    of run folders first: it is the right one if it has all ids and their labels.

    Args:
        runs: One or more, on the same corpus.
        data: Where corpora are prepared.
    """
    tested = {item.id: item.label for item in runs[0].items.values()}
    for folder in _folders(runs, data):
        try:
            found = {label.id: label for label in read_labels(folder)}
        except HeronryError:
            continue  # of another corpus, or as good as missing
        if all(id in found and found[id].label == label for id, label in tested.items()):
            return found
    return {}


def _folders(runs: Sequence[PredictedRun], data: Path) -> Iterator[Path]:
    named = [run.labels for run in runs if run.labels is not None]
    yield from dict.fromkeys([*named, *sorted(data.glob("*/labels"))])
