"""Inputs, truth and outputs of fusion models.

Shapes: B batch, T time, N turns, D width, R rows that are scored, K classes, A attributes, G
genders, O outputs (`pipeline.model.outputs`); `..` is B, or B and N for dialogues, or R.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Self

import torch
from torch import Tensor

from features.backbone.base import Inputs
from features.process.devices import moved
from features.stream import Stream

UNSCORED = -1  # label of a turn that is padding, and of a row that has no class


@dataclass(frozen=True)
class Targets:
    """Truth of a batch whose rows have more than one class each, or none.

    What is unknown is NaN, in all numbers of a row of `shares` and `genders`.

    Attributes:
        present: `[..]` bool: rows that exist; others are padding.
        labels: `[..]` class numbers, -1 where there is no class; or, after mixup, `[.., K]` shares.
        shares: `[.., K]` shares of the raters' votes; None without this task.
        values: `[.., A]` attributes, where [0, 1] is the corpus's scale; None without this task.
        genders: `[.., G]` shares of the genders: one is 1; None without this task.
        whole: The targets `[R, ...]` of the batch that this is a part of: a batch may be cut, or
            shared out over processes. Losses that are no mean over rows need it. None: of itself.
        places: `[..]` place of each row in `whole`; -1 at padding and at rows that another process
            counts. Given with `whole`.
    """

    present: Tensor
    labels: Tensor
    shares: Tensor | None = None
    values: Tensor | None = None
    genders: Tensor | None = None
    whole: Targets | None = None
    places: Tensor | None = None

    def __len__(self) -> int:
        return len(self.present)

    def __getitem__(self, rows: slice | tuple[slice | Tensor, ...] | Tensor) -> Targets:
        """Some rows, by slices or indices of the first axes, or a mask of all leading ones."""
        if isinstance(rows, Tensor) and rows.dtype == torch.bool:
            rows = rows.nonzero(as_tuple=True)  # once: a device is waited for at each mask
        return self._mapped(lambda tensor: tensor[rows])

    def to(self, device: torch.device | str) -> Targets:
        """The same targets on another device."""
        found = self._mapped(lambda tensor: moved(tensor, device))
        whole = None if self.whole is None else self.whole.to(device)
        return replace(found, whole=whole)

    def part_of(self, whole: Targets, places: Tensor) -> Targets:
        """The same targets as a part of a batch; arguments are the fields of these names."""
        return replace(self, whole=whole, places=places)

    def scored(self) -> Targets:
        """The rows that exist, `[R, ...]`."""
        return self[self.present]

    def numbered(self) -> Targets:
        """As a part of itself, so that its parts can be told apart."""
        places = torch.full(self.present.shape, UNSCORED)
        places[self.present] = torch.arange(int(self.present.sum()))
        return self.part_of(self.scored(), places)

    def _mapped(self, change: Callable[[Tensor], Tensor]) -> Targets:
        held = {each.name: getattr(self, each.name) for each in fields(self)}
        changed: dict[str, Any] = {
            name: change(each) for name, each in held.items() if isinstance(each, Tensor)
        }
        return replace(self, **changed)


@dataclass(frozen=True)
class Batch:
    """Streams by slot of B utterances or B dialogues, with their labels.

    In a batch of dialogues the frames of a stream are turns, one vector each: `[B, N, D]`. A batch
    holds no speakers.

    Attributes:
        streams: Streams by slot (text, speech, nonverbal, prosody, spectral), if it is filled.
        labels: `[B]` class numbers, int64; for dialogues `[B, N]`, with -1 at turns that are
            padding or are not to be scored. None where they are not known.
        ids: Ids of the utterances; for dialogues of all turns that exist, dialogue after dialogue.
        inputs: Inputs by slot of backbones that are part of the model, with a row for each id. Only
            in end-to-end training, where these slots have no stream yet.
        targets: Truth where it is more than one class a row; None: `labels` are all of it.
    """

    streams: Mapping[str, Stream]
    labels: Tensor | None = None
    ids: tuple[str, ...] = ()
    inputs: Mapping[str, Inputs] = field(default_factory=dict)
    targets: Targets | None = None

    def to(self, device: torch.device | str) -> Self:
        """The same batch on another device."""
        streams = {slot: stream.to(device) for slot, stream in self.streams.items()}
        labels = None if self.labels is None else moved(self.labels, device)
        inputs = {slot: given.to(device) for slot, given in self.inputs.items()}
        targets = None if self.targets is None else self.targets.to(device)
        return replace(self, streams=streams, labels=labels, inputs=inputs, targets=targets)

    @property
    def present(self) -> Tensor:
        """`[B]` or `[B, N]` bool: utterances, or turns that are no padding."""
        if self.targets is not None:
            return self.targets.present
        assert self.labels is not None
        if self.labels.is_floating_point():  # shares [B, K] of utterances, after mixup
            return torch.ones_like(self.labels[:, 0], dtype=torch.bool)
        return self.labels != UNSCORED

    def scored(self, outputs: Tensor) -> tuple[Tensor, Tensor | Targets]:
        """Outputs `[R, O]` and truth of the rows that are scored.

        Args:
            outputs: `[B, O]` or `[B, N, O]`.

        Returns:
            The outputs, and what a `Criterion` takes beside them: labels `[R]` or `[R, K]`, or
            `Targets`.
        """
        truth = self.labels if self.targets is None else self.targets
        assert truth is not None
        if outputs.ndim == 2:
            return outputs, truth
        places = self.present.nonzero(as_tuple=True)  # once: a device is waited for at each mask
        return outputs[places], truth[places]


@dataclass(frozen=True)
class Prediction:
    """Output of a model for a batch.

    Attributes:
        logits: `[B, O]`; for dialogues `[B, N, O]`. With classes alone O is K.
        extras: Further tensors that the model's own loss needs, by name.
    """

    logits: Tensor
    extras: Mapping[str, Tensor] = field(default_factory=dict)
