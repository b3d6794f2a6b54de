"""Data of the end-to-end benchmark, and our contender: `pipeline.training.loop.fit`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from features.backbone.entry import BackboneEntry
from features.corpus.manifest import Label, Manifest
from pipeline.data.examples import Examples
from pipeline.e2e.model import EndToEnd
from pipeline.e2e.source import LiveExamples
from pipeline.model.checkpoint import make_model
from pipeline.params.training import TrainParams
from pipeline.params.tuning import TuneParams
from pipeline.training.loop import begin, fit, micro_step
from pipeline.training.state import Progress, Training

CLASSES = ("angry", "happy", "neutral", "sad")
HEAD = {"d_model": 256, "dropout": 0.0}


@dataclass(frozen=True)
class TuneTask:
    """A network to fine-tune, below the fusion `concat`.

    Attributes:
        entry: Its backbone, whose checkpoint is written.
        manifest: The clips.
        device: Where.
        precision: Of the network.
        batch_size: Clips a step.
        batch_seconds: Padded seconds at which our own batches close; None: at `batch_size` clips.
        threads: That decode ahead.
    """

    entry: BackboneEntry
    manifest: Manifest
    device: str
    precision: str
    batch_size: int
    batch_seconds: float | None = None
    threads: int = 1

    def labels(self) -> list[Label]:
        """All clips train; the two shortest are validated as well, which is not timed."""
        clips = sorted(self.manifest, key=lambda clip: clip.seconds or 0.0)
        valid = {clip.id for clip in clips[:2]}
        return [
            Label(
                clip.id, CLASSES[n % 4], f"s{n}", splits=("valid" if clip.id in valid else "train",)
            )
            for n, clip in enumerate(self.manifest)
        ]

    def examples(self) -> LiveExamples:
        """As the stage has them."""
        return LiveExamples(
            cached=Examples({}, self.labels(), CLASSES, {}),
            backbones={"speech": self.entry.build()},
            utterances={clip.id: clip for clip in self.manifest},
            batch_size=self.batch_size,
            batch_seconds=self.batch_seconds,
            threads=self.threads,
            pinned=self.device != "cpu",
        )

    def model(self, examples: LiveExamples) -> EndToEnd:
        """The same weights each time."""
        torch.manual_seed(0)
        fusion = make_model("concat", HEAD, examples.specs, len(CLASSES))
        params = TuneParams(precision=self.precision)  # type: ignore[arg-type]
        return EndToEnd(fusion, examples.backbones, params).to(self.device)

    def params(self) -> TrainParams:
        """One epoch at a constant rate."""
        return TrainParams(epochs=1, batch_size=self.batch_size, lr=1e-5, schedule="constant")


class Stopwatch(Progress):
    """Seconds from the first batch's preparation to the end of the last optimiser step."""

    def __init__(self, device: str) -> None:
        self.device = device
        self.steps: list[tuple[str, ...]] = []
        self.losses: list[float] = []
        self.started = self.ended = 0.0

    def begin(self, training: Training) -> None:  # noqa: ARG002  the method of its base
        """Start."""
        self.started = self.now()

    def advance(self, ids: tuple[str, ...], loss: float | None) -> None:
        """Note a step; validation follows the last."""
        if loss is not None:
            self.steps.append(ids)
            self.losses.append(loss)
            self.ended = self.now()

    def now(self) -> float:
        """Once the device has done what it was given."""
        if self.device != "cpu":
            torch.cuda.synchronize()
        return time.perf_counter()


def train_ours(task: TuneTask) -> Stopwatch:
    """One epoch."""
    examples = task.examples()
    watch = Stopwatch(task.device)
    train, valid = examples.split(0, "train"), examples.split(0, "valid")
    params = task.params()
    model = task.model(examples)
    fit(model, examples, train=train, valid=valid, params=params, seed=0, progress=watch)
    return watch


def first_loss(task: TuneTask, ids: Sequence[str]) -> float:
    """Of a batch, before any step."""
    examples = task.examples()
    model = task.model(examples).train()
    by_id = {label.id: label for label in examples.labels}
    labels = [by_id[id] for id in ids]
    training = begin(model, examples, labels, task.params(), 0)
    return micro_step(training, examples.batch(labels).to(torch.device(task.device))).loss


def settings(width: str) -> dict[str, Any]:
    """HuBERT's configuration: the base one, or `small` for a CPU; nothing in it is random."""
    still = dict.fromkeys(
        ("hidden_dropout", "attention_dropout", "activation_dropout", "feat_proj_dropout"), 0.0
    )
    still |= {"layerdrop": 0.0, "apply_spec_augment": False}
    if width == "base":
        return still
    small = {"hidden_size": 384, "num_hidden_layers": 4, "num_attention_heads": 6}
    return still | small | {"intermediate_size": 1536, "conv_dim": (128,) * 7}
