"""Predictions of a corpus's models on another corpus, from its caches; no feature is computed.

A model of a corpus predicts its own test split in the fold that left it out, and so does one of the
union: these are in their runs. On another corpus all models of a run predict all of its test
utterances, which none of them has seen. They are kept beside the page, and computed again only if
the run, the labels or the caches have changed.
"""

from __future__ import annotations

import csv
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from features.cache.shard import settings_of
from features.corpus.manifest import UNLABELLED, Label
from features.errors import CacheError, RunError
from features.files.csv_text import unguarded, write_sheet
from features.files.reading import file_sha256, open_text
from features.files.records import read_json, write_json
from pipeline.data.examples import Examples, join
from pipeline.data.targets import TargetReader
from pipeline.evaluation.run_folder import RunFolder
from pipeline.model.checkpoint import load_model, outputs_of, read_description
from pipeline.model.inputs import InputSettings
from pipeline.runs.head import read_head
from pipeline.runs.job import repeatable
from pipeline.runtime.resume import shard_checksums
from pipeline.training.predict import predict
from pipeline.training.scores import decoded
from pipeline.transfer.ground import TargetCorpus

VERSION = 1  # raised when the same models predict otherwise
HEADER = ("id", "seed", "fold", "prediction")
Row = tuple[str, int, int, str]
"""Id in the target, seed, fold, and class of the source that was predicted."""


@dataclass(frozen=True)
class Source:
    """A trained run, by what predicts with it.

    Attributes:
        corpus: Corpus that it was trained on.
        run: Its run folder, as evaluation reads it.
        slots: Cache's name and provenance by filled slot.
        layers: Hidden state that is read of a stack, by slot (`inputs.layer`).
    """

    corpus: str
    run: RunFolder
    slots: Mapping[str, tuple[str, Mapping[str, Any]]]
    layers: Mapping[Any, int]

    @classmethod
    def read(cls, path: Path) -> Source:
        """Read a run.

        Raises:
            RunError: If it is no whole run, or learns no classes.
        """
        run = RunFolder.read(path)
        if not run.classes:
            raise RunError(
                f"{path} learns no classes, which transfer compares; expected `classes` or `votes` "
                "among train.targets"
            )
        slots = {
            slot: (str(of["backbone"]), of["provenance"]) for slot, of in run.slots.items() if of
        }
        layers = InputSettings.of(read_head(path).get("inputs")).layer
        return cls(run.corpus, run, slots, layers)

    def own_rows(self, prefix: str = "") -> list[Row]:
        """Its test predictions, of ids that begin with a prefix, which is removed."""
        rows: list[Row] = []
        for job in self.run.jobs:
            ids, found = job.table.column("id"), job.predictions
            for place in job.test.nonzero()[0].tolist():
                if ids[place].startswith(prefix):
                    guess = self.run.classes[found[place]]
                    rows.append((ids[place].removeprefix(prefix), job.seed, job.fold, guess))
        return rows


def steps(source: Source) -> int:
    """Number of models that predict."""
    return len(source.run.jobs)


def opened(source: Source, target: TargetCorpus) -> Examples:
    """The caches of the target's test utterances, in the source's slots.

    Raises:
        CacheError: If they are not of the backbones that the source was trained on.
    """
    slots = {slot: Path("cache", target.corpus, name) for slot, (name, _) in source.slots.items()}
    # Without truth, which the source's classes may not have.
    bare = [
        replace(each, label=None, votes=None, values=None, secondary=None, splits=(UNLABELLED,))
        for each in target.labels
    ]
    examples = join(slots, bare, source.run.classes, layers=source.layers, verify=False)
    for slot, reader in examples.readers.items():
        name, wanted = source.slots[slot]
        if settings_of(reader.provenance) != settings_of(wanted):
            raise CacheError(
                f"{reader.folder} was computed by other weights or settings than those that "
                f"{source.run.path} was trained on; expected the same entry {name!r}: run this "
                "command again, which lets DVC bring both up to date"
            )
    return examples


def key_of(source: Source, target: TargetCorpus, examples: Examples) -> str:
    """Hash of all that decides the predictions."""
    facts = {
        "version": VERSION,
        "run": file_sha256(source.run.path / "run.json"),
        "caches": shard_checksums(examples),
        "ids": [label.id for label in target.labels],
        "dialogues": [(label.dialogue, label.turn) for label in target.labels],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def predicted(source: Source, examples: Examples, device: str) -> Iterator[list[Row]]:
    """Predictions of each model of the source in turn."""
    labels: Sequence[Label] = examples.labels
    for job in source.run.jobs:
        folder = source.run.path / f"seed_{job.seed}" / f"fold_{job.fold}"
        reader = TargetReader(
            source.run.targets.tasks,  # type: ignore[arg-type]
            outputs_of(read_description(folder)),
        )
        model, classes = load_model(folder)
        with repeatable(device):
            raw = predict(model.to(device), replace(examples, targets=reader), labels)
        guesses = decoded(reader, raw).probabilities.argmax(1)
        yield [
            (label.id, job.seed, job.fold, classes[guess])
            for label, guess in zip(labels, guesses.tolist(), strict=True)
        ]


def write_rows(path: Path, key: str, rows: Sequence[Row]) -> None:
    """Write predictions, and beside them what they were made of."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_sheet(path, HEADER, rows)
    write_json(path.with_suffix(".json"), {"key": key, "sha256": file_sha256(path)})


def kept_rows(path: Path, key: str) -> list[Row] | None:
    """Predictions that were written of the same models, labels and caches; None: there are none."""
    about = path.with_suffix(".json")
    if not (path.is_file() and about.is_file()):
        return None
    if read_json(about) != {"key": key, "sha256": file_sha256(path)}:
        return None
    with open_text(path) as file:
        _, *rows = csv.reader(file, strict=True)
    return [
        (unguarded(id), int(seed), int(fold), unguarded(guess)) for id, seed, fold, guess in rows
    ]
