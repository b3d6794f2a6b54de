"""Writes small runs that learn votes and attributes, with raters whose habits differ."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from features.corpus.manifest import Label
from features.corpus.ratings import Rating, write_ratings
from features.files.csv_text import write_csv
from pipeline.params.training import monitors_of
from pipeline.runs.layout import Columns
from tests.support.runs.fake_run import FakeRun

SCALES = {"arousal": (1.0, 7.0), "valence": (1.0, 7.0)}
PROTOTYPES = {"angry": (6, 2), "happy": (5.5, 6), "neutral": (4, 4), "sad": (2.5, 2)}
RATERS = 6
"""Of the corpus; five of them rate each utterance."""


@dataclass(frozen=True)
class FakeTargets(FakeRun):
    """A run on a corpus whose utterances five of six raters judged.

    Every seventh utterance has no values, every eleventh no votes, and no class where raters tie.
    A prediction lies `pull` of the way from the middle of the scale to the truth, plus noise. The
    speech probe knows the truth; without speech the middle is predicted.
    """

    tasks: tuple[str, ...] = ("classes", "votes", "attributes")
    each: int = 20
    noise: float = 0.6
    pull: float = 0.7

    @property
    def scales(self) -> dict[str, tuple[float, float]]:
        """Scales of the attributes that are learnt."""
        return SCALES if "attributes" in self.tasks else {}

    @property
    def columns(self) -> Columns:
        """Columns of the run's files."""
        return Columns(self.tasks, self.shown, tuple(self.scales))

    @property
    def shown(self) -> tuple[str, ...]:
        """Classes of the run; none for attributes alone."""
        return self.classes if {"classes", "votes"} & set(self.tasks) else ()

    def ratings(self) -> list[Rating]:
        rng = np.random.default_rng(11)
        shift, found = rng.uniform(-0.5, 0.5, RATERS), []
        for index, label in enumerate(super().labels()):
            absent = index % RATERS
            for rater in (r for r in range(RATERS) if r != absent):
                felt = label.label if rng.random() < 0.7 else str(rng.choice(self.classes))
                raw = np.array(PROTOTYPES[str(label.label)]) + shift[rater] + rng.normal(0, 0.8, 2)
                values = dict(zip(SCALES, np.clip(raw.round(), 1, 7).tolist(), strict=True))
                found.append(Rating(label.id, f"R{rater}", label=felt, values=values))
        return found

    def labels(self) -> list[Label]:
        ratings: dict[str, list[Rating]] = {}
        for rating in self.ratings():
            ratings.setdefault(rating.id, []).append(rating)
        return [self._judged(k, x, ratings[x.id]) for k, x in enumerate(super().labels())]

    def _judged(self, index: int, label: Label, ratings: list[Rating]) -> Label:
        counts = {name: float(sum(r.label == name for r in ratings)) for name in self.classes}
        top = max(counts.values())
        tie = sum(count == top for count in counts.values()) > 1
        means = {a: float(np.mean([(r.values or {})[a] for r in ratings])) for a in SCALES}
        return replace(
            label,
            label=None if tie else max(counts, key=lambda name: counts[name]),
            votes=None if index % 11 == 0 else {name: c for name, c in counts.items() if c},
            values=None if index % 7 == 0 and not (tie and index % 11 == 0) else means,
        )

    def write(self, **head: Any) -> FakeTargets:
        super().write(**head)
        write_ratings(self.data.parent / "ratings", self.ratings())
        return self

    def head(self, dropped: dict[str, str]) -> dict[str, Any]:
        scales = {name: list(scale) for name, scale in self.scales.items()}
        targets = {
            "tasks": list(self.tasks),
            "attributes": scales,
            "genders": [],
            "losses": {task: "ccc" if task == "attributes" else "soft_ce" for task in self.tasks},
            "weights": dict.fromkeys(self.tasks, 1.0),
            "clipped": dict.fromkeys(scales, 3),
        }
        train = {"targets": list(self.tasks), "batch_size": 32, "monitor": self._monitor}
        more = {"version": 2, "classes": list(self.shown), "targets": targets, "train": train}
        return super().head(dropped) | more

    @property
    def _monitor(self) -> str:
        return monitors_of(self.tasks, tuple(self.scales))[-1]

    def card(self, labels: list[Label]) -> dict[str, Any]:
        known = [dict.fromkeys(("train", "valid", "test"), 1)] * self.folds
        attributes = {
            name: {"low": low, "high": high, "known": known, "mean": 4.0, "sd": 1.0}
            for name, (low, high) in SCALES.items()
        }
        return super().card(labels) | {
            "targets": {
                "tasks": ["classes", "votes", "attributes"],
                "attributes": attributes,
                "votes": {"raters_min": 5, "raters_mean": 5, "raters_max": 5, "outside": 0},
                "policies": {"no_agreement": "keep", "other": "drop"},
                "alpha": {"classes": 0.4, "arousal": 0.6, "valence": None},
            }
        }

    def _write_job(self, labels: list[Label], seed: int, fold: int) -> None:
        rng = np.random.default_rng([seed, fold])
        rows, probes, conditions = [], [], []
        for label in labels:
            split = label.splits[fold]
            if split == "train" or not (label.label or label.votes or label.values):
                continue
            facts = [label.id, label.speaker, label.dialogue or "", split, fold, seed]
            shares, guess = self._shares(rng, label)
            values = self._values(rng, label, self.pull, self.noise)
            names = [label.label or "" if self.shown else "", guess]
            rows.append([*facts, *names, *shares, *self._truth(label), *values])
            if split == "test":
                own = [label.id, "speech", names[0]]
                probes.append([*own, guess, *shares, *self._values(rng, label, 1.0, 0.0)])
                flat = [label.id, "without_speech", names[0]]
                conditions.append([*flat, guess, *shares, *[4.0 for _ in self.scales]])
        path = self.predictions(seed, fold)
        path.parent.mkdir(parents=True)
        write_csv(path, self.columns.predictions, rows)
        losses = len(self.columns.history) - 7  # beside seed, fold, epoch, lr, two losses, best
        history = [
            [*row[:6], *([row[6]] * losses), row[-1]] for row in self._history(rng, seed, fold)
        ]
        write_csv(path.with_name("history.csv"), self.columns.history, history)
        write_csv(path.with_name("probes.csv"), self.columns.probes, probes)
        write_csv(path.with_name("conditions.csv"), self.columns.conditions, conditions)

    def _shares(self, rng: np.random.Generator, label: Label) -> tuple[list[str], str]:
        if not self.shown:
            return [], ""
        known = label.votes or ({label.label: 1.0} if label.label else {})
        truth = np.array([known.get(name, 0.0) for name in self.shown])
        mixed = 0.6 * truth / max(truth.sum(), 1) + 0.4 * rng.dirichlet(np.ones(len(truth)))
        mixed = mixed / mixed.sum()
        return [f"{p:.9g}" for p in mixed], self.shown[int(mixed.argmax())]

    def _values(
        self, rng: np.random.Generator, label: Label, pull: float, noise: float
    ) -> list[str]:
        values = label.values or {}
        found = [4 + pull * (values.get(name, 4.0) - 4) for name in self.scales]
        return [
            f"{v:.9g}" for v in np.clip(np.array(found) + noise * rng.normal(size=len(found)), 1, 7)
        ]

    def _truth(self, label: Label) -> list[str]:
        votes = label.votes or {}
        total = sum(votes.values())
        shares = [
            f"{votes.get(n, 0) / total:.9g}" if total else ""
            for n in self.shown
            if "votes" in self.tasks
        ]
        values = label.values or {}
        return [*shares, *(f"{values[n]:.9g}" if n in values else "" for n in self.scales)]
