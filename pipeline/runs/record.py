"""Opens a run, checks what it trains on, and writes its record, run.json, in both regimes.

A run is one model of params.yaml on one corpus; its trainings (`Run.jobs`) differ by seed and fold.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch

from features.corpus.label_checks import class_lines, lacking_classes, lacking_lines, named
from features.corpus.labels_folder import read_labelled
from features.corpus.manifest import Label
from features.corpus.ratings import RATINGS
from features.corpus.split_counts import count_classes
from features.errors import CacheError
from features.files.reading import file_sha256
from features.files.reasons import reasons_line
from features.files.records import write_json
from features.files.writing import remove_folder
from features.stream import StreamSpec
from pipeline.data.batching import typical_scored
from pipeline.data.left_out import encode, summary
from pipeline.data.source import ExampleSource
from pipeline.data.targets import TargetReader
from pipeline.model.base import FusionModel
from pipeline.model.checkpoint import make_model
from pipeline.model.inputs import InputSettings
from pipeline.model.outputs import Outputs
from pipeline.params.file import ModelEntry, Params
from pipeline.params.slot_reads import warn_odd_slots
from pipeline.runs.job import Job, Outcome
from pipeline.runs.layout import FORMAT, TARGETS_VERSION, VERSION, digests
from pipeline.runs.targets import check_splits, reader_for, usable
from pipeline.runtime.environment import environment
from pipeline.tracking import Tracked
from pipeline.training.criteria import few_rows

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
        targets: What the model learns; None: one class an utterance.
        lacking: Number of the corpus's utterances that have none of it, and are left out.
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
    targets: TargetReader | None = None
    lacking: int = 0

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
        targets = reader_for(params.training(model), card, labels, corpus)
        used = usable(labels, targets)
        return cls(
            params,
            model,
            corpus,
            regime,
            used,
            card["classes"] if targets is None else targets.outputs.classes,
            int(card["folds"]),
            warnings,
            writes,
            targets,
            len(labels) - len(used),
        )

    @property
    def out(self) -> Path:
        """The run folder."""
        return Path("runs", self.regime, self.corpus, self.model.name)

    @property
    def outputs(self) -> Outputs:
        """Columns of the model's output."""
        return Outputs(tuple(self.classes)) if self.targets is None else self.targets.outputs

    @property
    def ratings(self) -> Path | None:
        """What each rater said, where training values are estimated from it."""
        estimates = self.params.training(self.model).estimator != "mean"
        learnt = self.targets is not None and self.targets.outputs.attributes
        return Path("data", self.corpus, "ratings") if learnt and estimates else None

    @property
    def facts(self) -> dict[str, Any]:
        """What of the targets decides numbers beside labels and protocol."""
        scales = self.outputs.to_dict()
        facts: dict[str, Any] = {"outputs": scales} if scales else {}
        if self.ratings is not None:
            facts["ratings"] = file_sha256(self.ratings / RATINGS)
        return facts

    @property
    def title(self) -> str:
        """Title of progress lines."""
        return f"{'train' if self.regime == 'cached' else 'fine-tune'} {self.model.name}"

    def check(self, examples: ExampleSource) -> None:
        """Report what is left out and which classes are trained; refuse a fold with an empty split.

        Raises:
            CacheError: If a training, validation or test split is empty.
            ParamsError: If one holds too little of what is learnt.
        """
        title = f"{self.title} on {self.corpus}"
        if self.writes:
            if self.lacking:
                what = "no class" if self.targets is None else f"none of {list(self.targets.tasks)}"
                sys.stderr.write(f"{title}: {self.lacking} utterances have {what}, left out\n")
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
        if self.targets is not None:
            check_splits(self.targets, self.params.training(self.model), examples, self.folds)
        warning = self._few_rows(examples)
        if self.writes:
            report_labels(title, examples)
            if warning:
                sys.stderr.write(f"  warning: {warning}\n")

    def sketch(self, examples: ExampleSource) -> FusionModel:
        """The model without weights, for what its settings say of it."""
        model, width = self.model, self.outputs.width
        with torch.device("meta"):
            return make_model(model.kind, model.args, examples.specs, width, inputs=model.inputs)

    def _few_rows(self, examples: ExampleSource) -> str:
        """Refuse or warn of batches that are too small for a loss."""
        params, unit = self.params.training(self.model), self.sketch(examples).unit
        train = examples.split(0, "train")
        return few_rows(params, typical_scored(examples, train, params.batch_size, unit=unit))

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
                targets=self.targets,
                ratings=self.ratings,
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
            "train": self.params.training(self.model).to_dict(),
            "e2e": vars(self.params.tuning(self.model)) if self.regime == "e2e" else None,
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
        outcomes: Sequence[Outcome],
        seconds: float,
        device: str,
        processes: int = 1,
    ) -> None:
        """Write run.json, after all other files of the run.

        Args:
            examples: Data that the models were trained and tested on.
            slots: Result of `slots`.
            asr: Facts about the test on recognised words; None: there was none.
            outcomes: What each job says of itself.
            seconds: Time that all jobs took.
            device: Where they were computed.
            processes: Number of processes that trained each model together.
        """
        noticed = {slot: dict(found) for slot, found in examples.noticed.items() if found}
        inputs = InputSettings.of(self.model.inputs).to_dict()
        record: dict[str, Any] = {
            "format": FORMAT,
            "version": VERSION if self.targets is None else TARGETS_VERSION,
            "regime": self.regime,
            "fusion": self.model.name,
            "kind": self.model.kind,
            "classes": list(self.classes),
            "seeds": self.params.seeds_of(self.model),
            "folds": self.folds,
            "args": dict(self.model.args),
            "train": self.params.training(self.model).to_dict(),
            "utterances": len(examples.labels),
            "dropped": {id: encode(reasons) for id, reasons in examples.dropped.items()},
        }
        # Fields that would say nothing are left out, as releases before they existed did.
        record |= {"noticed": noticed} if noticed else {}
        record |= {"inputs": inputs} if inputs else {}
        record |= {"stand_ins": dict(self.model.stand_ins)} if self.model.stand_ins else {}
        record |= {} if self.targets is None else {"targets": self._targets(outcomes)}
        record |= {"e2e": vars(self.params.tuning(self.model))} if self.regime == "e2e" else {}
        record |= {"corpus": self.corpus, "slots": slots}
        record |= {"asr": asr} if asr else {}
        record |= self.warnings
        # The same for all jobs.
        record |= {**outcomes[0].parameters, "train_seconds": round(seconds, 1)}
        record |= {"processes": processes} if processes > 1 else {}
        record |= {"environment": environment(device), "files": digests(self.out)}
        write_json(self.out / "run.json", record)

    def _targets(self, outcomes: Sequence[Outcome]) -> dict[str, Any]:
        """Field `targets` of run.json: `pipeline.runs.head.TargetsHead`."""
        assert self.targets is not None
        params, outputs, tasks = (
            self.params.training(self.model),
            self.targets.outputs,
            self.targets.tasks,
        )
        losses = {
            "classes": params.loss,
            "votes": params.vote_loss,
            "attributes": params.attribute_loss,
            "gender": "ce",
        }
        clipped = {
            name: sum(outcome.clipped[name] for outcome in outcomes) for name in outputs.attributes
        }
        return {
            "tasks": list(tasks),
            "attributes": {name: list(outputs.scales[name]) for name in outputs.attributes},
            "genders": list(outputs.genders),
            "losses": {task: losses[task] for task in tasks},
            "weights": {task: params.weight(task) for task in tasks},
            "weighting": params.weighting,
            "estimator": params.estimator,
            "lacking": self.lacking,
            "skipped_batches": sum(outcome.skipped for outcome in outcomes),
            "clipped": clipped,
        }


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
    labels = [label for label in examples.labels if label.label is not None]
    targets = examples.targets
    if targets is not None:
        names = [*targets.outputs.attributes]
        about = f", attributes {named(names)}" if names else ""
        sys.stderr.write(f"{title}: learns {' and '.join(targets.tasks)}{about}\n")
    if not examples.classes:
        return
    counts = count_classes(labels, [label.splits for label in labels], examples.classes)
    warnings = [*class_lines(counts), *lacking_lines(lacking_classes(counts))]
    lines = [f"{title}: {len(examples.classes)} classes, {named(examples.classes)}"]
    lines += [f"  warning: {line}" for line in warnings[:LISTED]]
    if len(warnings) > LISTED:
        lines.append(f"  and {len(warnings) - LISTED} more warnings")
    sys.stderr.write("\n".join(lines) + "\n")
