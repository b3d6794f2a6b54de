"""Truth of utterances as numbers: classes, shares of votes, attributes and genders.

`TargetReader` says which of them a model learns. With classes alone there is none, and batches hold
class numbers.

Shapes: R utterances, B dialogues, N turns, K classes, A attributes, G genders.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from features.corpus.manifest import Label
from pipeline.model.batch import UNSCORED, Targets
from pipeline.model.outputs import GENDERS, Outputs

Task = Literal["classes", "votes", "attributes", "gender"]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class TargetReader:
    """What a model learns of each utterance.

    Attributes:
        tasks: Targets that are trained.
        outputs: Columns of the model.
        vote_shares: Divisor of the votes of a class: those for any class, or all raters, with those
            who chose none of the classes.
        secondary_weight: Weight of a rater who names a class beside another choice.
        votes_missing: Whether an utterance without votes has no vote target, or its class as if all
            raters had chosen it.
        with_self: Whether the speakers' own ratings count where training values are estimated.
    """

    tasks: tuple[Task, ...]
    outputs: Outputs
    vote_shares: Literal["classes", "raters"] = "classes"
    secondary_weight: float = 0.0
    votes_missing: Literal["drop", "label"] = "drop"
    with_self: bool = False

    def learns_from(self, label: Label) -> bool:
        """Whether an utterance has any of the targets; a gender alone is no reason to use it."""
        if "classes" in self.tasks and label.label is not None:
            return True
        if "votes" in self.tasks and not math.isnan(self._vote_target(label)[0]):
            return True
        held = label.values or {}
        return "attributes" in self.tasks and any(n in held for n in self.outputs.attributes)

    def read(self, labels: Sequence[Label]) -> Targets:
        """Targets of some utterances, `[R, ...]`, as a part of themselves."""
        return self._read(labels).numbered()

    def read_dialogues(self, dialogues: Sequence[Sequence[Label]]) -> Targets:
        """Targets of the turns of some dialogues, `[B, N, ...]`."""
        flat = self._read([label for dialogue in dialogues for label in dialogue])
        lengths = torch.tensor([len(dialogue) for dialogue in dialogues])
        mask = torch.arange(int(lengths.max())) < lengths[:, None]
        shares, values, genders = (
            None if each is None else _spread(each, mask, math.nan)
            for each in (flat.shares, flat.values, flat.genders)
        )
        labels = _spread(flat.labels, mask, UNSCORED)
        return Targets(mask, labels, shares, values, genders).numbered()

    def votes(self, labels: Sequence[Label]) -> Floats:
        """Vote targets `[R, K]`; NaN where an utterance has none."""
        return np.array([self._vote_target(label) for label in labels], np.float64)

    def _read(self, labels: Sequence[Label]) -> Targets:
        outputs, tasks = self.outputs, self.tasks
        numbers = class_numbers(labels, outputs.classes)
        if "classes" not in tasks:
            numbers[:] = UNSCORED
        units = outputs.to_unit(known_values(labels, outputs.attributes))
        return Targets(
            torch.ones(len(labels), dtype=torch.bool),
            torch.from_numpy(numbers),
            torch.from_numpy(self.votes(labels)).float() if "votes" in tasks else None,
            torch.from_numpy(units).float() if "attributes" in tasks else None,
            torch.from_numpy(gender_shares(labels)).float() if "gender" in tasks else None,
        )

    def _vote_target(self, label: Label) -> list[float]:
        classes, weight = self.outputs.classes, self.secondary_weight
        if label.votes is None and self.votes_missing == "label" and label.label is not None:
            return [float(name == label.label) for name in classes]
        votes = label.votes or {}
        # A secondary choice says what else a rater heard, not how many raters there were: without
        # any vote there is no target.
        if not sum(votes.values()):
            return [math.nan] * len(classes)
        beside = label.secondary or {}
        weighted = [votes.get(name, 0.0) + weight * beside.get(name, 0.0) for name in classes]
        outside = (label.votes_outside or 0.0) if self.vote_shares == "raters" else 0.0
        total = sum(weighted) + outside
        return [each / total for each in weighted]


def class_numbers(labels: Sequence[Label], classes: Sequence[str]) -> NDArray[np.int64]:
    """Class numbers `[R]`; -1 where an utterance has no class."""
    number: Mapping[str | None, int] = {name: k for k, name in enumerate(classes)}
    return np.array([number.get(label.label, UNSCORED) for label in labels], np.int64)


def known_values(labels: Sequence[Label], attributes: Sequence[str]) -> Floats:
    """Attributes `[R, A]` on the corpus's own scale; NaN where unknown."""
    rows = [[(label.values or {}).get(name, math.nan) for name in attributes] for label in labels]
    return np.array(rows, np.float64).reshape(len(labels), len(attributes))


def true_votes(labels: Sequence[Label], classes: Sequence[str]) -> Floats:
    """Votes `[R, K]` by class; NaN where an utterance has none.

    Whatever a model is trained on, it is scored on what the raters chose.
    """
    rows = []
    for label in labels:
        votes = label.votes or {}
        known = sum(votes.values()) > 0
        rows.append([votes.get(name, 0.0) if known else math.nan for name in classes])
    return np.array(rows, np.float64).reshape(len(labels), len(classes))


def gender_shares(labels: Sequence[Label]) -> Floats:
    """One-hot genders `[R, G]`; NaN where the gender is none of them."""
    rows = []
    for label in labels:
        known = label.gender in GENDERS
        rows.append([float(label.gender == name) if known else math.nan for name in GENDERS])
    return np.array(rows, np.float64).reshape(len(labels), len(GENDERS))


def _spread(flat: Tensor, mask: Tensor, padding: float) -> Tensor:
    """Values `[R, ...]` of all turns as dialogues `[B, N, ...]`."""
    spread = flat.new_full((*mask.shape, *flat.shape[1:]), padding)
    spread[mask] = flat
    return spread
