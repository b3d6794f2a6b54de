"""A small LPGNet and batches for its tests."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from features.stream import Stream, StreamSpec
from pipeline.fusion.lpgnet import LPGNet, RowNorm
from pipeline.model.batch import Batch

CLASSES = 4
SPECS = {"text": StreamSpec(12), "speech": StreamSpec(10)}


def small(specs: Mapping[str, StreamSpec] | None = None, **args: Any) -> LPGNet:
    torch.manual_seed(0)
    return LPGNet(specs or SPECS, CLASSES, **{"d_model": 16, "dropout": 0.0, **args}).eval()


def randomised(model: LPGNet) -> LPGNet:
    """With norms that do something: fresh ones neither shift nor scale."""
    torch.manual_seed(1)
    for module in model.modules():
        if isinstance(module, RowNorm):
            for vector in (module.running_mean, module.weight, module.bias):
                assert isinstance(vector, Tensor)
                nn.init.normal_(vector, 0.5)
            assert isinstance(module.running_var, Tensor)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model


def dialogues(*lengths: int, specs: Mapping[str, StreamSpec] | None = None) -> Batch:
    torch.manual_seed(2)
    streams = {
        slot: Stream.pad([torch.randn(length, spec.dim) for length in lengths])
        for slot, spec in (specs or SPECS).items()
    }
    mask = streams[next(iter(streams))].mask
    labels = torch.randint(0, CLASSES, mask.shape).masked_fill(~mask, -1)
    return Batch(streams, labels)


def count(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def close(a: Tensor, b: Tensor, atol: float = 1e-5) -> bool:
    return a.shape == b.shape and torch.allclose(a, b, atol=atol, rtol=0)
