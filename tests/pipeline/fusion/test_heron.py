"""HERON: its size, its hierarchy, and its switches."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from features.errors import ParamsError
from features.stream import StreamSpec
from pipeline.model.batch import Batch
from pipeline.model.checkpoint import make_model
from tests.support.models.small_fusions import SPECS, batch_of, count, small, specs_of


def wide(dim: int, *slots: str) -> dict[str, StreamSpec]:
    return {slot: StreamSpec(dim=dim) for slot in slots}


def test_heron_has_the_papers_size() -> None:
    slots = ("text", "speech", "nonverbal")
    assert count(make_model("heron", {}, wide(768, *slots), 8)) == 7_619_336
    assert count(make_model("heron", {}, wide(384, *slots), 8)) == 7_029_512


def test_heron_without_attention_is_its_text_alone() -> None:
    """With level 2's attention forced to zero, the output depends on nothing but the text."""
    model: Any = small("heron")
    attention = model.level2.attention
    torch.nn.init.zeros_(attention.out_proj.weight)
    torch.nn.init.zeros_(attention.out_proj.bias)
    batch = batch_of(specs_of("heron"))
    other = {**batch.streams, "speech": batch_of({"speech": SPECS["speech"]}).streams["speech"]}
    changed = Batch({**other, "nonverbal": batch.streams["nonverbal"]})
    assert torch.allclose(model(batch).logits, model(changed).logits)


def test_heron_switches() -> None:
    batch = batch_of(specs_of("heron"))
    default = small("heron")(batch).logits
    for switch in ({"level1": "none"}, {"residual": False}, {"pool": "first"}):
        assert not torch.allclose(small("heron", **switch)(batch).logits, default)


def test_heron_refuses_slots_it_has_no_place_for() -> None:
    with pytest.raises(ParamsError, match="no place for the prosody slot"):
        small("heron", {"text": SPECS["text"], "prosody": SPECS["prosody"]})
