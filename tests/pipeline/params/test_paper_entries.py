"""The papers' own systems in the catalogue: their sizes on the papers' networks, their settings."""

from __future__ import annotations

import pytest
import torch

from features.stream import StreamSpec
from pipeline.model.checkpoint import make_model
from pipeline.params.catalogue.entries import catalogue_entry
from pipeline.params.file import Params, all_problems
from pipeline.params.tuning import SlotTuning
from tests.support.known_params import known_raw

WIDTHS = {
    **{name: StreamSpec(768) for name in ("roberta", "hubert", "voc2vec", "bert_cls")},
    "emotion2vec_mean": StreamSpec(768),
    "roberta_large": StreamSpec(1024),
    "whisper_large_v3": StreamSpec(1280),
    "rmvpe_mdat": StreamSpec(1, bins=256),
    "ced": StreamSpec(384),
}
# MDAT: 11,822,600 with F0 and SwiGLU, CED's two layers, and a classifier for 2048 in place of 1536.
MDAT = 11_822_600 + (384 * 512 + 512) + (512 * 512 + 512) + 4_204_552 - 2_366_984


@pytest.mark.parametrize(
    ("name", "classes", "size"),
    [("heron_paper", 8, 7_619_336), ("mdat_paper", 8, MDAT), ("lpgnet_paper", 4, 18_313_740)],
)
def test_a_system_has_its_size(name: str, classes: int, size: int) -> None:
    entry = catalogue_entry("models", name)
    slots = {slot: entry[slot] for slot in ("text", "speech", "nonverbal", "prosody", "spectral")}
    specs = {slot: WIDTHS[backbone] for slot, backbone in slots.items() if backbone != "none"}
    with torch.device("meta"):
        model = make_model(entry["kind"], entry["args"], specs, classes)
    assert sum(parameter.numel() for parameter in model.parameters()) == size


def test_heron_paper_trains_all_of_its_networks_end_to_end() -> None:
    params = Params(**known_raw())
    tuning = params.tuning(params.model("heron_paper"))
    for slot in ("text", "speech", "nonverbal"):
        assert tuning.of(slot) == SlotTuning(freeze_front_end=False)


@pytest.mark.parametrize("name", ["heron_paper", "mdat_paper", "lpgnet_paper"])
def test_settings_are_valid(name: str) -> None:
    assert all_problems(Params(**(known_raw() | {"fusion": name}))) == []


def test_mdat_has_the_weights_and_the_threshold_of_its_code() -> None:
    params = Params(**known_raw())
    assert params.training(params.model("mdat_paper")).loss == "weighted_ce"
    assert params.backbone("rmvpe_mdat").options["threshold"] == 0.05
