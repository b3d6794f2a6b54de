"""Opens a run, checks what it trains on, and writes its record, run.json, in both regimes.

A run is one model of params.yaml on one corpus; its trainings (`Run.jobs`) differ by seed and fold.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from features.corpus.label_checks import class_lines, lacking_classes, lacking_lines, named
from features.corpus.labels_folder import read_labelled
from features.corpus.manifest import Label
from features.corpus.split_counts import count_classes
from features.errors import CacheError
from features.files.reasons import reasons_line
from features.files.records import write_json
from features.files.writing import remove_folder
from features.stream import StreamSpec
from pipeline.data.left_out import encode, summary
from pipeline.data.source import ExampleSource
from pipeline.model.inputs import InputSettings
from pipeline.params.file import ModelEntry, Params
from pipeline.params.slot_reads import warn_odd_slots
from pipeline.runs.job import Job
from pipeline.runs.layout import FORMAT, VERSION, digests
from pipeline.runtime.environment import environment
from pipeline.tracking import Tracked

LISTED = 20  # warnings about labels that a log quotes


def filled_slots(params: Params, model: ModelEntry, corpus: str) -> dict[str, Path]:
    """Cache folder by slot, of the slots that are not `none`."""
    return {
        slot: Path("cache", corpus, backbone)
        for slot, backbone in model.slots.items()
        if params.backbone(backbone).kind != "none"
    }


@dataclass(frozen=True)
class Run:
    """One model on one corpus in one regime.

    Attributes:
        params: params.yaml.
        model: Entry of `models`.
        corpus: Entry of `corpora`; its labels and caches lie below the current folder.
        regime: Training regime.
        labels: All labels of the corpus.
        classes: Class names.
        folds: Number of folds of the corpus's protocol.
        warnings: Warnings for run.json.
        writes: Whether this process reports and writes; of several that train together, the first.
    """

    params: Params
    model: ModelEntry
    corpus: str
    regime: Literal["cached", "e2e"]
    labels: Sequence[Label]
    classes: Sequence[str]
    folds: int
    warnings: Mapping[str, list[str]]
    writes: bool

    @classmethod
    def open(
        cls,
        params: Params,
        model: ModelEntry,
        corpus: str,
        regime: Literal["cached", "e2e"],
        *,
        writes: bool = True,
    ) -> Run:
        """Remove the folder of an earlier run, warn of odd slots, and read the labels."""
        warnings = warn_odd_slots(params, model, corpus) if writes else {}
        if writes:
            # First of all, so that a run that fails leaves no results of an earlier one.
            remove_folder(Path("runs", regime, corpus, model.name))
        card, labels = read_labelled(Path("data", corpus, "labels"))
        classes, folds = card["classes"], int(card["folds"])
        return cls(params, model, corpus, regime, labels, classes, folds, warnings, writes)

    @property
    def out(self) -> Path:
        """The run folder."""
        return Path("runs", self.regime, self.corpus, self.model.name)

    @property
    def title(self) -> str:
        """Title of progress lines."""
        return f"{'train' if self.regime == 'cached' else 'fine-tune'} {self.model.name}"

    def check(self, examples: ExampleSource) -> None:
        """Report what is left out and which classes are trained; refuse a fold with an empty split.

        Raises:
            CacheError: If a training, validation or test split is empty.
        """
        title = f"{self.title} on {self.corpus}"
        if self.writes:
            report_dropped(title, examples, len(self.labels))
        if not examples.labels:
            raise CacheError(
                "no labelled utterance has features in all slots "
                f"({sorted(examples.specs)}); see rejected.csv in their cache folders"
            )
        for fold in range(self.folds):
            for split in ("train", "valid", "test"):
                # Called for its error.
                examples.split(fold, split)
        if self.writes:
            report_labels(title, examples)

    def jobs(
        self, labels: Sequence[Label], slots: Mapping[str, Path], device: str, **settings: Any
    ) -> list[Job]:
        """One job for each seed and fold, seeds first; `settings` are further fields of `Job`."""
        return [
            Job(
                title=self.title,
                kind=self.model.kind,
                args=self.model.args,
                slots=slots,
                labels=labels,
                classes=self.classes,
                params=self.params.training(self.model),
                seed=seed,
                fold=fold,
                out=self.out / f"seed_{seed}" / f"fold_{fold}",
                device=device,
                inputs=InputSettings.of(self.model.inputs).to_dict(),
                tracked=self._tracked(f"seed_{seed}/fold_{fold}"),
                **settings,
            )
            for seed in self.params.seeds_of(self.model)
            for fold in range(self.folds)
        ]

    def _tracked(self, name: str) -> Tracked | None:
        """What trackers show of a training; its settings are those that run.json will have."""
        if not (self.writes and self.params.trackers):
            return None
        filled = filled_slots(self.params, self.model, self.corpus)
        record = {
            "regime": self.regime,
            "corpus": self.corpus,
            "fusion": self.model.name,
            "kind": self.model.kind,
            "args": dict(self.model.args),
            "inputs": InputSettings.of(self.model.inputs).to_dict(),
            "train": vars(self.params.training(self.model)),
            "e2e": vars(self.params.tuning()) if self.regime == "e2e" else None,
            "slots": {
                slot: {"backbone": backbone} if slot in filled else None
                for slot, backbone in self.model.slots.items()
            },
        }
        return Tracked.of(self.params.trackers, record, name)

    def slots(
        self, specs: Mapping[str, StreamSpec], provenance: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, Any]:
        """Field `slots` of run.json: backbone, stream and provenance; None if not filled."""
        return {
            slot: {
                "backbone": backbone,
                "spec": specs[slot].to_dict(),
                "provenance": dict(provenance[slot]),
            }
            if slot in specs
            else None
            for slot, backbone in self.model.slots.items()
        }

    def write(
        self,
        examples: ExampleSource,
        *,
        slots: Mapping[str, Any],
        asr: Mapping[str, Any] | None,
        parameters: Mapping[str, int],
        seconds: float,
        device: str,
        processes: int = 1,
    ) -> None:
        """Write run.json, after all other files of the run.

        Args:
            examples: Data that the models were trained and tested on.
            slots: Result of `slots`.
            asr: Facts about the test on recognised words; None: there was none.
            parameters: Numbers of the model's parameters, by key.
            seconds: Time that all jobs took.
            device: Where they were computed.
            processes: Number of processes that trained each model together.
        """
        noticed = {slot: dict(found) for slot, found in examples.noticed.items() if found}
        inputs = InputSettings.of(self.model.inputs).to_dict()
        record: dict[str, Any] = {
            "format": FORMAT,
            "version": VERSION,
            "regime": self.regime,
            "fusion": self.model.name,
            "kind": self.model.kind,
            "classes": self.classes,
            "seeds": self.params.seeds_of(self.model),
            "folds": self.folds,
            "args": dict(self.model.args),
            "train": vars(self.params.training(self.model)),
            "utterances": len(examples.labels),
            "dropped": {id: encode(reasons) for id, reasons in examples.dropped.items()},
        }
        # Fields that would say nothing are left out, as releases before they existed did.
        record |= {"noticed": noticed} if noticed else {}
        record |= {"inputs": inputs} if inputs else {}
        record |= {"e2e": vars(self.params.tuning())} if self.regime == "e2e" else {}
        record |= {"corpus": self.corpus, "slots": slots}
        record |= {"asr": asr} if asr else {}
        record |= self.warnings
        record |= {**parameters, "train_seconds": round(seconds, 1)}
        record |= {"processes": processes} if processes > 1 else {}
        record |= {"environment": environment(device), "files": digests(self.out)}
        write_json(self.out / "run.json", record)


def report_dropped(title: str, examples: ExampleSource, utterances: int) -> None:
    """Print which of the corpus's `utterances` are left out, or used in part, to standard error."""
    if examples.dropped:
        sys.stderr.write(f"{title}: {summary(examples.dropped, utterances)}\n")
    for slot, noticed in examples.noticed.items():
        if noticed:
            reasons = reasons_line(noticed.values())
            sys.stderr.write(f"{title}: {len(noticed)} used in part by {slot}: {reasons}\n")


def report_labels(title: str, examples: ExampleSource) -> None:
    """Print which classes are trained, and warnings about them, to standard error.

    The labels are those that are used: without what was left out, a split may lack a class.
    """
    labels = examples.labels
    counts = count_classes(labels, [label.splits for label in labels], examples.classes)
    warnings = [*class_lines(counts), *lacking_lines(lacking_classes(counts))]
    lines = [f"{title}: {len(examples.classes)} classes, {named(examples.classes)}"]
    lines += [f"  warning: {line}" for line in warnings[:LISTED]]
    if len(warnings) > LISTED:
        lines.append(f"  and {len(warnings) - LISTED} more warnings")
    sys.stderr.write("\n".join(lines) + "\n")
