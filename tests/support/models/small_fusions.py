"""Small models of every fusion kind, and batches for them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch

from features.arguments import parameter_types
from features.errors import ParamsError
from features.ranges import Heads, Multiple, Width
from features.settings.plugins import kinds, load
from features.stream import Stream, StreamSpec
from pipeline.model.base import FusionModel, Unit
from pipeline.model.batch import Batch
from pipeline.model.checkpoint import FUSIONS, make_model

ALL = kinds(FUSIONS)
CLASSES = 4
SPECS = {
    "text": StreamSpec(dim=12),
    "speech": StreamSpec(dim=10, hop_seconds=0.02),
    "nonverbal": StreamSpec(dim=10, hop_seconds=0.02),
    "prosody": StreamSpec(dim=1, bins=16, hop_seconds=0.02),
    "spectral": StreamSpec(dim=6),
}
SIZES: dict[Any, int] = {Width: 16, Heads: 2, Multiple: 2}


def small_sizes(kind: str) -> dict[str, Any]:
    """Arguments of a small model: all widths, heads and multiples that are no option to be None."""
    return {
        name: size
        for name, hint in parameter_types(load(FUSIONS, kind)).items()
        for annotation, size in SIZES.items()
        if annotation == hint
    }


SMALL = {kind: small_sizes(kind) for kind in ALL}


def specs_of(kind: str) -> dict[str, StreamSpec]:
    """All slots that a kind takes."""
    try:
        make_model(kind, SMALL[kind], SPECS, CLASSES)
    except ParamsError as error:
        refused = re.search(r"no place for the (\w+) slot", str(error))
        assert refused is not None
        allowed = re.findall(r"'(\w+)'", str(error).partition("it takes")[2])
        return {slot: spec for slot, spec in SPECS.items() if slot in allowed}
    return SPECS


def small(kind: str, specs: Mapping[str, StreamSpec] | None = None, **args: Any) -> FusionModel:
    torch.manual_seed(0)
    return make_model(kind, {**SMALL[kind], **args}, specs or specs_of(kind), CLASSES).eval()


def sequences(spec: StreamSpec, lengths: list[int]) -> list[torch.Tensor]:
    if spec.bins is not None:
        return [torch.randint(0, spec.bins, (length,)) for length in lengths]
    return [torch.randn(length, spec.dim) for length in lengths]


def batch_of(specs: Mapping[str, StreamSpec], size: int = 4, *, unit: Unit = "utterance") -> Batch:
    """Utterances whose streams differ in length; or dialogues, one vector a turn in each stream."""
    torch.manual_seed(1)
    streams = {}
    for number, (slot, spec) in enumerate(specs.items()):
        offset = 0 if unit == "dialogue" else number
        lengths = [1 + (3 * i + offset) % 7 for i in range(size)]
        streams[slot] = Stream.pad(sequences(spec, lengths))
    labels = torch.arange(size) % CLASSES
    if unit == "dialogue":
        mask = next(iter(streams.values())).mask
        turns = (labels[:, None] + torch.arange(mask.shape[1])) % CLASSES
        labels = turns.masked_fill(~mask, -1)
    return Batch(streams, labels, tuple(str(i) for i in range(size)))


def scored(logits: torch.Tensor, batch: Batch) -> torch.Tensor:
    """`[R, K]`: the rows that have a label; in dialogues, all turns that are no padding."""
    assert batch.labels is not None
    return logits.flatten(0, -2)[batch.labels.flatten() >= 0]


def count(model: FusionModel) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
