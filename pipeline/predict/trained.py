"""A trained run: its models with their temperatures, and the backbones that each of them needs.

A run on caches has one set of backbones, an end-to-end run one for each seed and fold: a *group* is
a set of backbones with the models that take their features.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from features.backbone.entry import BackboneEntry
from features.errors import RunError
from features.files.reading import file_sha256
from features.stream import StreamSpec
from pipeline.data.layer_views import place_of
from pipeline.data.targets import TargetReader
from pipeline.evaluation.calibration import fit_soft_temperature, fit_temperature
from pipeline.evaluation.run_folder import JobResult, RunFolder
from pipeline.model.base import FusionModel, ModalityDropout, Unit
from pipeline.model.checkpoint import load_model, outputs_of, read_description
from pipeline.model.outputs import Outputs
from pipeline.predict.recorded import known_entries, recorded_entry, tuned_entry
from pipeline.runs.head import read_head
from pipeline.runtime.resume import PROJECT, code_of, code_sha256

JOB = re.compile(r"seed_(\d+)/fold_(\d+)")


@dataclass(frozen=True)
class Trained:
    """One trained model of a run.

    Attributes:
        seed: Random seed.
        fold: Fold, from 0.
        folder: Folder of its files.
        temperature: Divisor of its logits, fitted on its validation rows; None: it has none.
    """

    seed: int
    fold: int
    folder: Path
    temperature: float | None

    @property
    def name(self) -> str:
        """Folder below that of the run."""
        return f"seed_{self.seed}/fold_{self.fold}"


@dataclass(frozen=True)
class Slot:
    """A filled slot.

    Attributes:
        head: Its object in run.json.
        entry: Entry that computes what the run recorded.
        used: Entry that computes its features now: the same, or one with tuned weights.
        tuned: Whether `used` has weights from the run folder.
        layer: Hidden state that the model takes of those that the entry computes; None: all.
    """

    head: Mapping[str, Any]
    entry: BackboneEntry
    used: BackboneEntry
    tuned: bool = False
    layer: int | None = None

    def part_of(self, frames: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """What the model takes of the entry's frames `[T, L * D]`, by id."""
        if self.layer is None:
            return frames
        place = place_of(self.layer, self.head["provenance"], self.entry.name, "the run")
        if place is None:
            return frames
        width = self.spec.dim
        return {id: each[:, place * width : (place + 1) * width] for id, each in frames.items()}

    @property
    def spec(self) -> StreamSpec:
        """Its stream."""
        return StreamSpec(**self.head["spec"])


@dataclass(frozen=True)
class Group:
    """A set of backbones, and the models that take their features."""

    slots: Mapping[str, Slot]
    models: tuple[Trained, ...]

    @property
    def entries(self) -> list[BackboneEntry]:
        """Entries that compute its features, each once."""
        found: list[BackboneEntry] = []
        for slot in self.slots.values():
            found += [] if slot.used in found else [slot.used]
        return found


@dataclass(frozen=True)
class TrainedRun:
    """A run as prediction needs it.

    Attributes:
        path: The run folder.
        reader: What it learns: tasks and the columns of its outputs.
        unit: What its models take: utterances or dialogues.
        drops: Whether its models were trained with missing slots.
        groups: Backbones and models.
        identity: What decides its numbers, for the name of half-done work.
    """

    path: Path
    reader: TargetReader
    unit: Unit
    drops: bool
    groups: tuple[Group, ...]
    identity: Mapping[str, Any]

    @property
    def models(self) -> list[Trained]:
        """All models that predict."""
        return [model for group in self.groups for model in group.models]

    @property
    def slots(self) -> list[str]:
        """Filled slots."""
        return list(self.groups[0].slots)

    @property
    def outputs(self) -> Outputs:
        """Columns of the models' outputs."""
        return self.reader.outputs


def open_run(path: Path, *, seed: int | None = None, fold: int | None = None) -> TrainedRun:
    """Read a run folder, or the folder of one seed and fold in it.

    Args:
        path: `runs/<regime>/<corpus>/<fusion>`, or `seed_<k>/fold_<j>` below it.
        seed: Seed of the models that predict; None: all.
        fold: Their fold; None: all.

    Raises:
        ManifestError: If it has no run.json.
        RunError: If it is no whole run, or a slot's features cannot be computed.
    """
    path, seed, fold = _named(path, seed, fold)
    head, run = read_head(path), RunFolder.read(path)
    if head.get("answers"):
        raise RunError(
            f"{path} holds what a language model answered, and no model; expected a trained run, "
            "such as runs/cached/demo/heron: ask the model itself about other recordings"
        )
    if run.members:
        raise RunError(
            f"{path} is an ensemble, which has no weights of its own; expected a trained run: "
            f"predict with its members, {', '.join(run.members)}"
        )
    return assembled(
        path, head, run.targets.tasks, _chosen(run, temperatures(run), seed, fold), known_entries()
    )


def assembled(
    path: Path,
    head: Mapping[str, Any],
    tasks: Sequence[str],
    chosen: Sequence[Trained],
    known: Mapping[str, BackboneEntry],
    then: Mapping[str, int] | None = None,
) -> TrainedRun:
    """A run of models that are on the disk.

    Args:
        path: Folder of the run.
        head: Content of its run.json.
        tasks: What it learns.
        chosen: Its models that predict.
        known: Entries in which backbones are looked for: `pipeline.predict.recorded`.
        then: Versions of kinds when the run could be computed: there.

    Raises:
        RunError: If a slot's features cannot be computed.
        CheckpointError: If a model cannot be read.
    """
    description = read_description(chosen[0].folder)
    reader = TargetReader(tasks, outputs_of(description))  # type: ignore[arg-type]
    entries = {
        slot: recorded_entry(slot, of, known, then)
        for slot, of in head["slots"].items()
        if of is not None
    }
    layers = (head.get("inputs") or {}).get("layer") or {}
    if head["regime"] == "e2e":
        groups = [Group(_tuned(head, entries, each.folder, layers), (each,)) for each in chosen]
    else:
        slots = {
            slot: Slot(head["slots"][slot], each, each, layer=layers.get(slot))
            for slot, each in entries.items()
        }
        groups = [Group(slots, tuple(chosen))]
    model = load_trained(chosen[0])
    return TrainedRun(
        path=path,
        reader=reader,
        unit=model.unit,
        drops=any(
            isinstance(part, ModalityDropout) and part.probability > 0 for part in model.modules()
        ),
        groups=tuple(groups),
        identity={
            "slots": {slot: of and of["provenance"] for slot, of in head["slots"].items()},
            "models": {each.name: _hashes(each.folder) for each in chosen},
            "temperatures": [each.temperature for each in chosen],
            "code": code_sha256(code_of(head["kind"], "e2e"), PROJECT),
        },
    )


def load_trained(model: Trained) -> FusionModel:
    """The fusion of a trained model, in eval mode.

    Raises:
        CheckpointError: If its files are missing or do not fit each other.
    """
    return load_model(model.folder)[0]


def temperatures(run: RunFolder) -> list[float | None]:
    """Temperature of each job of a run, as its report has it; None for all if one has none.

    It is fitted on validation rows with a class; of a run that learns votes and no classes, on
    those with votes. A model that decides class by class has no softmax to scale.
    """
    binary = run.targets.columns.binary
    found = [None if binary else _temperature(run, job) for job in run.jobs]
    # A mean of scaled and unscaled probabilities would be neither.
    return found if None not in found else [None] * len(found)


def _temperature(run: RunFolder, job: JobResult) -> float | None:
    if "classes" in run.targets.tasks:
        rows = ~job.test & (job.labels >= 0)
        if rows.any():
            shares = job.probabilities[rows]
            return fit_temperature(shares / shares.sum(1, keepdims=True), job.labels[rows])
    elif "votes" in run.targets.tasks:
        rows = ~job.test & ~np.isnan(job.shares).any(1)
        if rows.any():
            shares = job.probabilities[rows]
            return fit_soft_temperature(shares / shares.sum(1, keepdims=True), job.shares[rows])
    return None


def _named(path: Path, seed: int | None, fold: int | None) -> tuple[Path, int | None, int | None]:
    """The run folder, the seed and the fold."""
    found = JOB.fullmatch("/".join(path.absolute().parts[-2:]))
    if found is None or (path / "run.json").is_file():
        if not (path / "run.json").is_file():
            runs = sorted(each.parent.as_posix() for each in Path().glob("runs/*/*/*/run.json"))
            here = f"one of {runs[:5]}" if runs else "a trained run, such as runs/cached/demo/heron"
            raise RunError(f"{path} is no run folder: it has no run.json; expected {here}")
        return path, seed, fold
    if seed is not None or fold is not None:
        raise RunError(
            f"given --seed or --fold beside {path}, which names one; expected either of them"
        )
    return path.absolute().parents[1], int(found[1]), int(found[2])


def _chosen(
    run: RunFolder, scales: Sequence[float | None], seed: int | None, fold: int | None
) -> list[Trained]:
    found = [
        Trained(job.seed, job.fold, run.path / f"seed_{job.seed}" / f"fold_{job.fold}", scale)
        for job, scale in zip(run.jobs, scales, strict=True)
        if seed in (None, job.seed) and fold in (None, job.fold)
    ]
    if not found:
        given = {"seed": seed, "fold": fold}
        named = ", ".join(
            f"{name} {number}" for name, number in given.items() if number is not None
        )
        raise RunError(
            f"{run.path} has no {named}; expected one of the seeds "
            f"{list(run.seeds)} and a fold from 0 to {run.folds - 1}"
        )
    return found


def _tuned(
    head: Mapping[str, Any],
    entries: Mapping[str, BackboneEntry],
    folder: Path,
    layers: Mapping[str, int],
) -> dict[str, Slot]:
    slots = {}
    for slot, entry in entries.items():
        live = tuned_entry(slot, entry, folder, head["e2e"])
        tuned = live is not None and live.options != entry.options
        slots[slot] = Slot(head["slots"][slot], entry, live or entry, tuned, layers.get(slot))
    return slots


def _hashes(folder: Path) -> list[str]:
    """Hashes of a model's weights and of the tuned backbones beside it."""
    paths = [folder / "model.safetensors", *sorted(folder.glob("backbones/*/*.safetensors"))]
    return [file_sha256(path) for path in paths if path.is_file()]
