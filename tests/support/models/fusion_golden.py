"""The golden vectors of the public fusion models (golden/README.md §3.5) as batches and weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from features.stream import Stream, StreamSpec
from pipeline.model.base import FusionModel
from pipeline.model.batch import Batch
from tests.support.models.golden import golden
from tests.support.models.golden_fill import fill

SPECS = {
    "speech": StreamSpec(dim=1280, hop_seconds=0.02),
    "text": StreamSpec(dim=1024),
    "prosody": StreamSpec(dim=1, bins=256, hop_seconds=0.02),
    "spectral": StreamSpec(dim=384),
}


def public_weights(variant: str) -> dict[str, Tensor]:
    """Formula-made weights of a variant under the public code's names."""
    keys = golden("fusion_keys.json")[variant]
    shapes = {e["key"]: torch.empty(e["shape"], device="meta") for e in keys["entries"]}
    return {k: torch.from_numpy(v) for k, v in fill(shapes, keys["salt"]).items()}


def parameters_total(variant: str) -> int:
    """Number of parameters of the public model."""
    total: int = golden("fusion_keys.json")[variant]["parameters_total"]
    return total


def vectors(variant: str) -> dict[str, Any]:
    """Outputs of the public model: `logits`, `logits_ragged`, `pooled`, and of layers."""
    return golden(f"fusion_{variant}.npz")


def inputs(*slots: str, ragged: bool = False) -> Batch:
    """Batch of two utterances: without any padding, or cut to the ragged lengths and masked."""
    arrays = golden("fusion_inputs.npz")
    names = {"speech": "audio", "text": "text", "prosody": "f0_bins", "spectral": "ced"}
    streams = {}
    for slot in slots:
        rows = list(torch.from_numpy(arrays[names[slot]]))
        if slot == "spectral":
            rows = [row[None] for row in rows]
        elif ragged:
            lengths = arrays["text_lengths" if slot == "text" else "audio_lengths"].tolist()
            rows = [row[:length] for row, length in zip(rows, lengths, strict=True)]
        streams[slot] = Stream.pad(rows)
    return Batch(streams)


def padded_as_public(batch: Batch) -> Batch:
    """The batch as the public code takes it: no masks, F0 padded with the number of bins."""
    padded = {}
    for slot, stream in batch.streams.items():
        values = stream.values
        bins = SPECS[slot].bins
        if bins is not None:
            values = values.masked_fill(~stream.mask, bins)
        padded[slot] = Stream(values, torch.ones_like(stream.mask))
    return Batch(padded)


def outputs(model: FusionModel, batch: Batch, modules: Mapping[str, str]) -> dict[str, Any]:
    """Outputs of modules on a batch, by name in `modules`, and `pooled`, the classifier's input.

    The values of streams; of a multi-head attention its output without the weights.
    """
    found: dict[str, Any] = {}

    def record(name: str, module: nn.Module, result: Any) -> None:
        if isinstance(module, nn.MultiheadAttention):
            result = result[0]
        found[name] = result.values if isinstance(result, Stream) else result

    hooks = [
        model.get_submodule(module).register_forward_hook(
            lambda module, _, result, name=name: record(name, module, result)
        )
        for name, module in modules.items()
    ]
    hooks.append(
        model.get_submodule("classifier").register_forward_pre_hook(
            lambda module, given: record("pooled", module, given[0])
        )
    )
    with torch.inference_mode():
        model(batch)
    for hook in hooks:
        hook.remove()
    return found


def assert_equals_public(model: FusionModel, variant: str, *slots: str) -> None:
    """Logits of the whole and of the ragged batch equal the public model's to 1e-5."""
    assert sum(p.numel() for p in model.parameters()) == parameters_total(variant)
    expected = vectors(variant)
    with torch.inference_mode():
        for name, ragged in (("logits", False), ("logits_ragged", True)):
            found = model.eval()(inputs(*slots, ragged=ragged)).logits
            difference = (found - torch.from_numpy(expected[name])).abs().max()
            assert difference <= 1e-5, f"{variant} {name}: {difference}"
