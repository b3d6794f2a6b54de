"""A batch of clips and its parts give the same states and gradients."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from features.backbone.entry import backbone_entry
from features.backbones._hidden_states import in_parts
from features.corpus.utterance import Utterance
from tests.conftest import ManifestMaker
from tests.contracts.checkpoints import emotion2vec, speech_encoder, wav2vec2_bert

SECONDS = [1.0, 3.1, 0.035, 2.4, 3.1]  # in parts: both of 3.1 and 2.4, then 1.0 and 0.035
MASKABLE = {
    name: ("speech_encoder", speech_encoder.VARIANTS[name])
    for name in ("hubert_group", "wav2vec2_layer", "wavlm_group")
} | {
    "emotion2vec": ("emotion2vec", emotion2vec.VARIANTS["wrapped"]),
    "wav2vec2_bert": ("wav2vec2_bert", wav2vec2_bert.VARIANTS["public"]),
}


@pytest.fixture
def clips(make_manifest: ManifestMaker) -> list[Utterance]:
    return list(make_manifest(SECONDS))


def maskable(name: str, folder: Path) -> Any:
    torch.manual_seed(0)
    kind, write = MASKABLE[name]
    backbone: Any = backbone_entry(name, {"kind": kind, **write(folder)}).build()
    backbone.network.requires_grad_(requires_grad=True)
    return backbone


def states_and_gradients(backbone: Any, clips: list[Utterance]) -> list[Tensor]:
    """Frames of each clip, and the gradient of the sum of their squares by each parameter."""
    backbone.network.zero_grad()
    frames = backbone(backbone.prepare(clips)).unpad()
    sum((one.square().sum() for one in frames), torch.zeros(())).backward()
    gradients = [p.grad.clone() for p in backbone.network.parameters() if p.grad is not None]
    return [one.detach() for one in frames] + gradients


def close(ours: list[Tensor], theirs: list[Tensor]) -> None:
    assert len(ours) == len(theirs)
    for one, other in zip(ours, theirs, strict=True):
        assert one.shape == other.shape
        assert float((one - other).abs().max()) <= 2e-5 * max(1.0, float(other.abs().max()))


@pytest.mark.slow
@pytest.mark.parametrize("name", MASKABLE)
def test_parts_equal_one_pass_as_a_gpu_makes_it(
    name: str, tmp_path: Path, clips: list[Utterance], monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone = maskable(name, tmp_path)
    calls: list[int] = []
    backbone.network.register_forward_pre_hook(
        lambda _, args, kwargs: calls.append(len((*args, *kwargs.values())[0])), with_kwargs=True
    )
    in_its_parts = states_and_gradients(backbone, clips)
    assert calls == [3, 2]
    monkeypatch.setattr(
        sys.modules[type(backbone).__module__],
        "clips_in_parts",
        lambda samples, lengths, states, **_: states(samples, lengths),
    )
    close(states_and_gradients(backbone, clips), in_its_parts)
    assert calls == [3, 2, 5]


@pytest.mark.parametrize(
    ("differing", "groups"),
    [(0, [[9, 9], [7], [4], [1]]), (2, [[9, 9, 7], [4], [1]]), (9, [[9, 9, 7, 4, 1]])],
)
def test_rows_of_similar_lengths_are_computed_together(
    differing: int, groups: list[list[int]]
) -> None:
    lengths = torch.tensor([4, 9, 1, 7, 9])
    seen: list[list[int]] = []

    def compute(rows: Tensor, longest: int) -> Tensor:
        seen.append(lengths[rows].tolist())
        values = torch.arange(longest, dtype=torch.float32)
        return values[None, :, None] + 10.0 * rows[:, None, None]

    values = in_parts(lengths, compute, differing=differing)
    assert seen == groups
    for row, length in enumerate(lengths.tolist()):
        assert values[row, :length, 0].tolist() == [10.0 * row + n for n in range(length)]
