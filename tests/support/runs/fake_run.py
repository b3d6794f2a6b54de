"""Writes small run and label folders, as training and `prepare` do, for tests of evaluation."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from features.corpus.manifest import Label, read_labels
from features.files.csv_text import write_csv
from features.files.records import write_json, write_rows
from pipeline.evaluation.rows import RunRows
from pipeline.evaluation.run_folder import RunFolder
from pipeline.runs.layout import CONDITIONS, HISTORY, PREDICTIONS, PROBES

CLASSES = ("angry", "happy", "neutral", "sad")
SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class FakeRun:
    """A run on a corpus of `speakers` who say `each` things; fold j tests every third speaker.

    `skill` is the share of utterances whose class the model sees; the rest is guessed. `facts` adds
    all optional facts to the labels: every third utterance says "yes." in its own spelling, odd
    speakers are women. `extras` adds probes.csv and conditions.csv: the text probe always predicts
    neutral, if that is a class, the speech probe is right; without speech every prediction is the
    first class, `shuffled_text` changes nothing.
    """

    root: Path
    classes: tuple[str, ...] = CLASSES
    seeds: tuple[int, ...] = (0, 1)
    folds: int = 1
    speakers: int = 9
    each: int = 12
    skill: float = 0.6
    epochs: int = 4
    speaker_name: str = "speaker {}"
    dropped: int = 2
    facts: bool = False
    extras: bool = False

    @property
    def run(self) -> Path:
        return self.root / "runs/cached/fake/blend"

    @property
    def data(self) -> Path:
        return self.root / "data/fake/labels"

    def predictions(self, seed: int = 0, fold: int = 0) -> Path:
        return self.run / f"seed_{seed}/fold_{fold}/predictions.csv"

    def labels(self) -> list[Label]:
        """Class k of K is 1/(k+1) as frequent as class 0, so that the majority is class 0."""
        rng = np.random.default_rng(5)
        weights = 1 / np.arange(1, len(self.classes) + 1)
        drawn = rng.choice(len(weights), self.speakers * self.each, p=weights / weights.sum())
        return [
            Label(
                id=f"u{index:04d}",
                label=self.classes[k],
                speaker=self.speaker_name.format(index // self.each),
                dialogue=f"d{index // (2 * self.each)}",
                splits=tuple(
                    SPLITS[(index // self.each + fold + 2) % 3] for fold in range(self.folds)
                ),
                **(self._facts(index) if self.facts else {}),
            )
            for index, k in enumerate(drawn)
        ]

    def _facts(self, index: int) -> dict[str, Any]:
        speaker = index // self.each
        spellings = ("Yes.", "yes", " YES! ")
        return {
            "gender": "female" if speaker % 2 else "male",
            "session": f"S{speaker // 3}",
            "seconds": 0.5 + index % 12,
            "text": f"line {index}" if index % 3 else spellings[index // 3 % 3],
            "audio": f"clips/{index:04d}.wav",
            "start": 1.0 * index,
            "stop": 1.5 + index,
        }

    def write(self, **head: Any) -> FakeRun:
        """Write both folders; `head` replaces fields of run.json."""
        labels = self.labels()
        self.data.mkdir(parents=True)
        write_rows(self.data / "labels.jsonl", labels)
        write_json(self.data / "card.json", self.card(labels))
        dropped = {label.id: "tone: no frames" for label in labels[: self.dropped]}
        for seed in self.seeds:
            for fold in range(self.folds):
                kept = [label for label in labels if label.id not in dropped]
                self._write_job(kept, seed, fold)
        write_json(self.run / "run.json", self.head(dropped) | head)
        return self

    def head(self, dropped: dict[str, str]) -> dict[str, Any]:
        tone = {
            "backbone": "tone",
            "spec": {"dim": 8, "bins": None, "hop_seconds": 0.02},
            "provenance": {"checkpoint": "none", "layer": -1, "weights_sha256": "ab12" * 16},
        }
        return {
            "format": "heronry-run",
            "version": 1,
            "regime": "cached",
            "corpus": "fake",
            "fusion": "blend",
            "kind": "concat",
            "classes": list(self.classes),
            "slots": {"text": tone, "speech": None},
            "seeds": list(self.seeds),
            "folds": self.folds,
            "args": {"hidden": 32, "dropout": 0.1},
            "train": {"epochs": self.epochs, "lr": 5e-5, "monitor": "weighted_f1"},
            "parameters": 12345,
            "utterances": self.speakers * self.each - len(dropped),
            "dropped": dropped,
            "train_seconds": 1.5,
        }

    def card(self, labels: list[Label]) -> dict[str, Any]:
        counts, speakers = [], []
        for fold in range(self.folds):
            by_split = {s: [label for label in labels if label.splits[fold] == s] for s in SPLITS}
            found = {s: Counter(label.label for label in part) for s, part in by_split.items()}
            counts.append({s: {k: found[s][k] for k in self.classes} for s in SPLITS})
            speakers.append({s: len({x.speaker for x in part}) for s, part in by_split.items()})
        return {
            "corpus": "fake",
            "kind": "demo",
            "title": "A corpus that never was",
            "licence": "CC0-1.0",
            "citation": "none",
            "obtain": "Write it.",
            "classes": list(self.classes),
            "protocol": "official",
            "folds": self.folds,
            "counts": counts,
            "speakers": speakers,
            "allow_leak": [],
            "leaks": [],
            "rejected": 0,
            "disclaimer": None,
        }

    def _write_job(self, labels: list[Label], seed: int, fold: int) -> None:
        rng = np.random.default_rng([seed, fold])
        size = len(self.classes)
        rows: list[list[Any]] = []
        for split in ("valid", "test"):
            for label in (x for x in labels if x.splits[fold] == split):
                truth = self.classes.index(label.label)
                guess = truth if rng.random() < self.skill else int(rng.integers(size))
                shares = rng.dirichlet(np.ones(size)) / 2 + np.eye(size)[guess] / 2
                fact = [label.id, label.speaker, label.dialogue or "", split, fold, seed]
                names = [label.label, self.classes[guess]]
                rows.append([*fact, *names, *(f"{p:.9g}" for p in shares)])
        path = self.predictions(seed, fold)
        path.parent.mkdir(parents=True)
        write_csv(path, [*PREDICTIONS, *(f"p_{k}" for k in self.classes)], rows)
        write_csv(path.with_name("history.csv"), HISTORY, self._history(rng, seed, fold))
        if self.extras:
            self._write_extras(path.parent, [row for row in rows if row[3] == "test"])

    def _write_extras(self, folder: Path, tested: list[list[Any]]) -> None:
        probes, conditions = [], []
        middle = "neutral" if "neutral" in self.classes else self.classes[0]
        for id, *_, label, prediction in (row[:8] for row in tested):
            for slot, guess in (("text", middle), ("speech", label)):
                shares = [float(name == guess) for name in self.classes]
                probes.append([id, slot, label, guess, *shares])
            changed = {"without_speech": self.classes[0], "shuffled_text": prediction}
            conditions += [[id, name, label, guess] for name, guess in changed.items()]
        write_csv(folder / "probes.csv", [*PROBES, *(f"p_{k}" for k in self.classes)], probes)
        write_csv(folder / "conditions.csv", CONDITIONS, conditions)

    def _history(self, rng: np.random.Generator, seed: int, fold: int) -> list[list[Any]]:
        rows: list[list[Any]] = []
        for epoch in range(1, self.epochs + 1):
            train = np.log(len(self.classes)) * 0.8**epoch + 0.02 * rng.random()
            losses = [round(train, 6), round(train + 0.003 * epoch**1.7 + 0.1, 6)]
            score = round(0.7 - 0.6 * 0.8**epoch + 0.03 * rng.random(), 6)
            best = int(epoch == max(1, self.epochs - 1))
            rows.append([seed, fold, epoch, 5e-5, *losses, *([score] * 4), best])
        return rows


def rows_of(fake: FakeRun) -> RunRows:
    """The test rows of a written run."""
    labels = {label.id: label for label in read_labels(fake.data)}
    return RunRows.of(RunFolder.read(fake.run), labels)


def edit_json(path: Path, **fields: Any) -> None:
    """Replace fields of a JSON object in a file."""
    content = json.loads(path.read_text(encoding="utf-8"))
    write_json(path, content | fields)


def edit_lines(path: Path, change: Callable[[list[str]], list[str]]) -> None:
    """Replace the lines of a text file."""
    lines = path.read_text(encoding="utf-8").splitlines()
    path.write_text("\n".join(change(lines)) + "\n", encoding="utf-8")
