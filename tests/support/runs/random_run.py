"""Runs of models with random weights on real features, as training on caches leaves them."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
import yaml

from features.backbone.entry import BackboneEntry
from features.corpus.manifest import Label, Manifest
from features.extraction.extract import extract
from features.files.csv_text import write_csv
from features.files.records import read_json, write_json, write_rows
from pipeline.data.examples import join
from pipeline.data.targets import TargetReader
from pipeline.model.checkpoint import make_model, save_model
from pipeline.model.outputs import Outputs
from pipeline.params.training import TrainParams
from pipeline.runs.conditions import cached_conditions, write_conditions
from pipeline.runs.job import Job, write_predictions
from pipeline.runs.layout import digests
from pipeline.training.criteria import criterion_of
from tests.support.models.small_fusions import SMALL

CLASSES = ("angry", "calm", "sad")


@dataclass
class RandomRun:
    """A run in `folder`, whose current folder is the project.

    Attributes:
        folder: The project.
        manifest: Utterances of its corpus, located.
        entries: Backbones by slot.
        kind: Fusion.
        args: Its arguments; small sizes by default.
        seeds: Seeds, each with other weights.
        tasks: What it learns.
        layer: Hidden state that is read of a stack, by slot.
    """

    folder: Path
    manifest: Manifest
    entries: Mapping[str, BackboneEntry]
    kind: str = "concat"
    args: Mapping[str, Any] = field(default_factory=dict)
    seeds: Sequence[int] = (0,)
    tasks: tuple[Any, ...] = ("classes",)
    layer: Mapping[str, int] = field(default_factory=dict)

    @property
    def path(self) -> Path:
        """The run folder."""
        return self.folder / "runs/cached/tones" / self.kind

    @property
    def labels(self) -> list[Label]:
        """Two dialogues, of the splits valid and test in turn."""
        return [
            Label(
                u.id,
                CLASSES[number % 3],
                f"s{number % 2}",
                f"d{number % 2}",
                number // 2,
                gender=("female", "male")[number % 2],
                splits=(("valid", "test")[number % 2],),
                votes={name: 1.0 + (name == CLASSES[number % 3]) for name in CLASSES},
                values={"arousal": 1.0 + number % 5, "valence": 5.0 - number % 5},
            )
            for number, u in enumerate(self.manifest)
        ]

    def write(self, store: Path, **known: Any) -> RandomRun:
        """Write caches, models, predictions and run.json; and params.yaml, with its entries."""
        slots = {slot: self.folder / "cache/tones" / slot for slot in self.entries}
        for slot, entry in self.entries.items():
            extract(self.manifest, entry, slots[slot], store=store)
        self.params(**known)
        examples = join(slots, self.labels, CLASSES, layers=self.layer)
        reader = self.reader
        examples = replace(examples, targets=None if self.tasks == ("classes",) else reader)
        args = {**SMALL[self.kind], **self.args}
        params = TrainParams(epochs=1, targets=self.tasks)
        for seed in self.seeds:
            out = self.path / f"seed_{seed}" / "fold_0"
            torch.manual_seed(seed)
            width = reader.outputs.width
            model = make_model(self.kind, args, examples.specs, width).eval()
            job = Job(
                *("x", self.kind, args, slots, self.labels, CLASSES, params, seed, 0, out, "cpu"),
                targets=examples.targets,
            )
            model.criterion = criterion_of(params, self.labels, CLASSES, examples.targets)
            save_model(
                *(out, model),
                kind=self.kind,
                args=args,
                specs=examples.specs,
                classes=reader.outputs.classes,
                outputs=reader.outputs.to_dict(),
            )
            write_predictions(job, model, examples)
            header = job.columns.history
            epoch = [seed, 0, 1, *[0.5] * (len(header) - 4), 1]  # the only one, which is kept
            write_csv(out / "history.csv", header, [epoch])
            test = examples.split(0, "test")
            conditions = cached_conditions(examples, test, seed)
            header = job.columns.conditions
            write_conditions(out / "conditions.csv", model, conditions, test, header=header)
        provenance = {slot: reader.provenance for slot, reader in examples.readers.items()}
        write_json(self.path / "run.json", self._head(examples.specs, provenance, args))
        return self

    def prepare(self, corpus: str = "manifest") -> Path:
        """Write the labels of a run that is written as `prepare` does; returns their folder."""
        folder = self.folder / "data/tones/labels"
        folder.mkdir(parents=True)
        labels = [
            replace(
                each,
                votes=each.votes if "votes" in self.tasks else None,
                values=each.values if "attributes" in self.tasks else None,
            )
            for each in self.labels
        ]
        # Baselines are of the training split, which the run itself does not need.
        trained = [replace(each, id=f"t{each.id}", splits=("train",)) for each in labels]
        write_rows(folder / "labels.jsonl", [*labels, *trained])
        head = read_json(self.path / "run.json") | {"utterances": len(labels) + len(trained)}
        write_json(self.path / "run.json", head)
        card: dict[str, Any] = {"corpus": "tones", "kind": corpus, "title": "Tones", "folds": 1}
        card["classes"] = list(CLASSES)
        if self.tasks != ("classes",):
            scales = self.reader.outputs.scales
            held = {
                name: {"low": low, "high": high, "known": [{}], "mean": 3.0, "sd": 1.0}
                for name, (low, high) in scales.items()
            }
            card["targets"] = {"tasks": list(self.tasks), "attributes": held}
        write_json(folder / "card.json", card)
        return folder

    @property
    def reader(self) -> TargetReader:
        """What it learns."""
        named = {"classes", "votes"} & {*self.tasks}
        scales = {"arousal": (1.0, 5.0), "valence": (1.0, 5.0)}
        held = scales if "attributes" in self.tasks else {}
        genders = ("female", "male") if "gender" in self.tasks else ()
        return TargetReader(
            self.tasks, Outputs(CLASSES if named else (), tuple(held), genders, held)
        )

    def params(self, **backbones: Any) -> None:
        """Write a params.yaml with the entries of the slots, or with others of their names."""
        own = {
            entry.name: {
                "kind": entry.kind,
                "pooling": entry.pooling,
                "store_dtype": entry.store_dtype,
                "version": entry.version,
                **entry.options,
            }
            for entry in self.entries.values()
        }
        content: dict[str, Any] = {
            "fusion": "m",
            "regime": "cached",
            "corpus": "tones",
            "seeds": None,
        }
        content |= {"train": {}, "corpora": {"tones": {"kind": "manifest"}}, "models": {}}
        text = yaml.safe_dump({**content, "backbones": {**own, **backbones, "none": {}}})
        (self.folder / "params.yaml").write_text(text)

    def table(self, path: Path, *columns: str) -> Path:
        """A table of its utterances for `heronry predict`, with the columns id, audio and these."""
        labels = {label.id: label for label in self.labels}
        with path.open("w", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "audio", *columns])
            for u in self.manifest:
                held = {**vars(labels[u.id]), **vars(u)}
                writer.writerow([u.id, u.audio, *(held[name] for name in columns)])
        return path

    def _head(
        self, specs: Mapping[str, Any], provenance: Mapping[str, Any], args: Mapping[str, Any]
    ) -> dict[str, Any]:
        slots = {
            slot: {
                "backbone": self.entries[slot].name,
                "spec": specs[slot].to_dict(),
                "provenance": dict(provenance[slot]),
            }
            for slot in specs
        }
        head = {
            "format": "heronry-run",
            "version": 1,
            "regime": "cached",
            "corpus": "tones",
            "fusion": self.kind,
            "kind": self.kind,
            "classes": list(self.reader.outputs.classes),
            "slots": {"text": None} | slots,
            "seeds": list(self.seeds),
            "folds": 1,
            "args": dict(args),
            "train": {"monitor": "macro_f1"},
            "parameters": 1,
            "train_seconds": 0.0,
            "utterances": len(self.manifest),
            "dropped": {},
            "files": digests(self.path),
        }
        head |= {"inputs": {"layer": dict(self.layer)}} if self.layer else {}
        if self.tasks == ("classes",):
            return head
        outputs = self.reader.outputs
        return head | {
            "version": 2,
            "targets": {
                "tasks": list(self.tasks),
                "attributes": {name: list(outputs.scales[name]) for name in outputs.attributes},
                "genders": list(outputs.genders),
                "losses": {},
                "weights": {},
            },
        }
