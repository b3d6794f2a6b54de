"""Concatenation equals the public code's "simple" models, golden/README.md §3.5."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pipeline.fusion.concat import from_public
from pipeline.model.checkpoint import make_model
from tests.support.models import fusion_golden
from tests.support.models.fusion_golden import SPECS

SLOTS = ("speech", "text", "prosody")
VARIANTS: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    "simple": (SLOTS[:2], {}),
    "simple_f0_swiglu": (SLOTS, {"classifier": "swiglu", "hidden": 768}),
}


@pytest.mark.parametrize("mask_padding", [True, False])
@pytest.mark.parametrize("name", VARIANTS)
def test_concat_equals_the_public_model(name: str, mask_padding: bool) -> None:
    slots, args = VARIANTS[name]
    specs = {slot: SPECS[slot] for slot in slots}
    model = make_model("concat", {**args, "mask_padding": mask_padding}, specs, 8).eval()
    model.load_state_dict(from_public(fusion_golden.public_weights(name)))
    if mask_padding:
        fusion_golden.assert_equals_public(model, name, *slots)
        return
    with torch.inference_mode():
        logits = model(fusion_golden.inputs(*slots)).logits
    expected = torch.from_numpy(fusion_golden.vectors(name)["logits"])
    assert (logits - expected).abs().max() <= 1e-5


@torch.inference_mode()
def test_pooled_vectors_equal_the_public_ones() -> None:
    slots, args = VARIANTS["simple_f0_swiglu"]
    model: Any = make_model("concat", args, {slot: SPECS[slot] for slot in slots}, 8).eval()
    model.load_state_dict(from_public(fusion_golden.public_weights("simple_f0_swiglu")))
    for name, ragged in (("pooled", False), ("pooled_ragged", True)):
        streams = fusion_golden.inputs(*slots, ragged=ragged).streams
        pooled = torch.cat([model.vector(slot, streams[slot]) for slot in slots], dim=1)
        expected = torch.from_numpy(fusion_golden.vectors("simple_f0_swiglu")[name])
        assert (pooled - expected).abs().max() <= 2e-5


@torch.inference_mode()
def test_without_masks_padding_goes_into_the_means() -> None:
    """As in the public code: F0 padded with the number of bins, the rest with zeros."""
    specs = {slot: SPECS[slot] for slot in SLOTS}
    torch.manual_seed(0)
    masked = make_model("concat", {"d_model": 8}, specs, 4).eval()
    plain = make_model("concat", {"d_model": 8, "mask_padding": False}, specs, 4).eval()
    plain.load_state_dict(masked.state_dict())
    ragged = fusion_golden.inputs(*SLOTS, ragged=True)
    padded = fusion_golden.padded_as_public(ragged)
    assert torch.allclose(plain(ragged).logits, masked(padded).logits, atol=1e-6)
    assert not torch.allclose(plain(ragged).logits, masked(ragged).logits, atol=1e-3)
