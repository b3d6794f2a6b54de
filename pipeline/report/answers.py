"""What the page says about the questions and answers of a speech language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from pipeline.evaluation.run_folder import RunFolder
from pipeline.html.format import dash
from pipeline.runs.answers import READ_AS, Answer, counts, read_answers

LISTED = 20
"""Answers without a class that are shown."""
_FACTS = {
    "kind": "kind",
    "checkpoint": "model",
    "revision": "revision",
    "weights": "weights",
    "dtype": "precision",
    "quantise": "quantised",
    "max_new_tokens": "longest answer, tokens",
}
"""Titles of the keys of the model's provenance that are shown first."""


@dataclass(frozen=True)
class Answered:
    """Answers about the test rows of all folds.

    Attributes:
        total: Number of answers.
        ways: Words for how an answer was read, and the number of such answers.
        without: Answers without a class.
    """

    total: int
    ways: Sequence[tuple[str, int]]
    without: Sequence[Answer]

    @property
    def ways_in_cells(self) -> list[tuple[str, str, str]]:
        """Rows of a table: how, number and share."""
        return [(how, f"{number:,}", f"{number / self.total:.1%}") for how, number in self.ways]

    @classmethod
    def of(cls, run: RunFolder) -> Self:
        """Read the answers of a run."""
        folders = (run.path / f"seed_{job.seed}" / f"fold_{job.fold}" for job in run.jobs)
        found = [each for folder in folders for each in read_answers(folder)]
        tested = [each for each in found if each.split == "test"]
        found_by = counts(tested)
        ways = [(words, found_by[how]) for how, words in READ_AS.items() if how in found_by]
        return cls(len(tested), ways, [each for each in tested if each.label is None])


def facts(head: Mapping[str, Any]) -> list[tuple[str, object]]:
    """Title and value of what answered, by the field `answers` of run.json."""
    model = head["model"]
    return [(title, dash(model[name])) for name, title in _FACTS.items() if name in model]
