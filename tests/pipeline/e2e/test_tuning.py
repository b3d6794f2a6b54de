"""What is trained of a network: its parts, rates, adapters and masking."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from features.audio import torchaudio_cpu  # noqa: F401  transformers imports torchaudio
from features.backbone.base import module_of
from features.errors import ParamsError
from pipeline.e2e.model import boxes, crops, mask_time, spans
from pipeline.e2e.tuning import anatomy, tune, units
from pipeline.params.training import TrainParams
from pipeline.params.tuning import LoraParams, SlotTuning, TuneParams, tune_problems
from pipeline.training.loop import begin, make_optimizer, train_epoch, update
from tests.conftest import ManifestMaker
from tests.support.models.small_live import (
    FAMILIES,
    entry_of,
    live_of,
    logits,
    slot_of,
    tuned_model,
    without_dropout,
)

SECONDS = [0.3, 0.5, 0.4]


def network_of(family: str, folder: Path, **settings: Any) -> torch.nn.Module:
    network = module_of(entry_of(family, folder, **settings).build())
    assert network is not None
    return network


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_parameter_has_its_part(family: str, tmp_path: Path) -> None:
    """Three blocks (one, where they are shared), of equal size, and a front end where one hears.

    That of w2v-BERT is a spectrum, without weights.
    """
    network = network_of(family, tmp_path)
    parts = anatomy(network)
    names = [name for name, _ in network.named_parameters()]
    assert len(parts.blocks) == (1 if family == "albert" else 3)
    kinds = {type(network.get_submodule(block)) for block in parts.blocks}
    assert len(kinds) == 1
    front = {name for name in names if parts.in_front(name)}
    hears = slot_of(entry_of(family, tmp_path / "again")) != "text"
    assert bool(front) == (hears and family != "w2v_bert")
    assert all("conv" in name or "patch_embed" in name for name in front)
    assert sorted(set(map(parts.depth, names))) == list(range(len(parts.blocks) + 1))
    outer = (*parts.front, *parts.blocks, *parts.top)
    covered = [id(p) for module in units(network, outer) for p in module.parameters()]
    assert len(covered) == len(set(covered))


def test_a_norm_belongs_where_it_is_computed(tmp_path: Path) -> None:
    """Behind the blocks in pre-norm networks, below them in post-norm ones."""
    found = {f: anatomy(network_of(f, tmp_path)).top for f in ("hubert_layer", "hubert_group")}
    assert found == {"hubert_layer": ("encoder.layer_norm",), "hubert_group": ()}
    assert anatomy(network_of("whisper", tmp_path)).top == ("layer_norm",)


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_merged_adapters_equal_unmerged(
    family: str, tmp_path: Path, make_manifest: ManifestMaker
) -> None:
    entry = entry_of(family, tmp_path)
    slot = slot_of(entry)
    live = live_of(make_manifest(SECONDS), {slot: entry.build()})
    names = list(network_of(family, tmp_path / "again").state_dict())
    plain = logits(tuned_model(live, slots={slot: {"tune": "frozen"}}), live.batch(live.labels))
    model = tuned_model(live, slots={slot: {"tune": "lora"}})
    batch = live.batch(live.labels)
    assert torch.allclose(logits(model, batch), plain, atol=1e-6)  # B is zero at first
    training = begin(model, live, live.labels, TrainParams(lr=3e-2), seed=0)
    for _ in range(4):
        train_epoch(training, live, live.labels, TrainParams(lr=3e-2))
    before = logits(model, batch)
    with torch.no_grad():
        for name, value in model.named_parameters():
            if "lora_B" in name:
                assert float(value.abs().max()) > 0, name
                value.mul_(4)  # so that adapters show
    unmerged = logits(model, batch)
    assert float((unmerged - before).abs().max()) > 1e-4
    model.merge()
    assert torch.allclose(logits(model, batch), unmerged, atol=1e-5)
    assert list(model.networks[slot].state_dict()) == names


def test_adapters_stand_beside_queries_and_values(tmp_path: Path) -> None:
    network = network_of("hubert_group", tmp_path)
    tune(network, SlotTuning(tune="lora", freeze_layers=1), LoraParams(rank=2), "speech")
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    assert {".".join(name.split(".")[2:5]) for name in trained} == {
        *(f"{layer}.attention.{end}" for layer in (1, 2) for end in ("q_proj", "v_proj"))
    }
    sizes = [p.shape for name, p in network.named_parameters() if "lora_A" in name]
    assert {tuple(size) for size in sizes} == {(2, 32)}


def test_wavlm_gets_them_where_they_are_computed(tmp_path: Path) -> None:
    """Its attention never calls its linear layers."""
    network = network_of("wavlm_group", tmp_path)
    tune(network, SlotTuning(tune="lora"), LoraParams(), "speech")
    trained = {name for name, p in network.named_parameters() if p.requires_grad}
    assert trained
    assert all("feed_forward" in name for name in trained)
    fresh = network_of("wavlm_group", tmp_path / "again")
    with pytest.raises(ParamsError, match=r"e2e.lora.targets: given \['q_proj'\].*output_dense"):
        tune(fresh, SlotTuning(tune="lora"), LoraParams(targets=["q_proj"]), "speech")


def test_targets_can_be_named(tmp_path: Path) -> None:
    network = network_of("bert", tmp_path)
    tune(network, SlotTuning(tune="lora"), LoraParams(targets=["intermediate.dense"]), "text")
    trained = [name for name, p in network.named_parameters() if p.requires_grad]
    assert len(trained) == 2 * 3
    assert all("intermediate.dense" in name for name in trained)


def test_more_layers_than_there_are_cannot_be_frozen(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match=r"e2e.slots.text.freeze_layers: given 4.*at most 3"):
        tune(network_of("bert", tmp_path), SlotTuning(freeze_layers=4), LoraParams(), "text")


def test_rates_by_slot_and_layer(tmp_path: Path, make_manifest: ManifestMaker) -> None:
    """The schedule's rate, times the slot's share of the protocol's, times decay a layer."""
    entries = {slot_of(e): e for e in (entry_of(f, tmp_path) for f in ("bert", "whisper"))}
    live = live_of(make_manifest(SECONDS), {slot: e.build() for slot, e in entries.items()})
    text = {"lr": 1e-4, "layer_decay": 0.5}
    model = tuned_model(live, slots={"text": text, "nonverbal": {"lr": 2e-3}})
    params = TrainParams(lr=1e-3)
    training = begin(model, live, live.labels, params, seed=0)
    training.schedule.peak = 5e-4  # half, as on a plateau
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    update(training, 1.0, 1.0)
    rates = {
        id(p): group["lr"] for group in training.optimizer.param_groups for p in group["params"]
    }
    found = {name: rates[id(p)] for name, p in model.named_parameters() if id(p) in rates}
    assert {found[name] for name in found if name.startswith("fusion.")} == {5e-4}
    assert {found[name] for name in found if name.startswith("networks.nonverbal.")} == {1e-3}
    for name, rate in found.items():
        if name.startswith("networks.text."):
            below = next((2 - i for i in range(3) if f".layer.{i}." in name), 3)
            assert rate == pytest.approx(5e-5 * 0.5**below), name
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert set(found) == trained
    assert len(make_optimizer(model, params).param_groups) == 6


def test_spans_cover_their_share() -> None:
    """1 - (1 - share / length)^length of the frames that have `length` frames before them."""
    torch.manual_seed(0)
    covered = spans(400, 200, 0.3, 10)
    assert float(covered[:, 9:].float().mean()) == pytest.approx(1 - (1 - 0.03) ** 10, abs=0.01)
    assert float(covered[:, 0].float().mean()) == pytest.approx(0.03, abs=0.03)
    ends = covered[:, :-1] & ~covered[:, 1:]
    for row, last in ends.nonzero().tolist()[:200]:
        if last >= 9:
            assert bool(covered[row, last - 9 : last + 1].all())


@pytest.mark.parametrize(
    ("family", "setting"),
    [
        *((name, "specaugment") for name in ("hubert_group", "wavlm_group", "whisper", "ced")),
        ("w2v_bert", "specaugment"),
        ("whisper_trim", "specaugment"),
        ("ced", "spectrogram_masks"),
        ("ced", "random_crop"),
    ],
)
def test_masking_is_for_training_alone(
    family: str, setting: str, tmp_path: Path, make_manifest: ManifestMaker
) -> None:
    entry = entry_of(family, tmp_path)
    seconds = [4.0, 3.5, 11.0] if setting == "random_crop" else SECONDS
    live = live_of(make_manifest(seconds), {slot_of(entry): entry.build()})
    batch = live.batch(live.labels)
    plain = logits(tuned_model(live), batch)
    masked: dict[str, Any] = {setting: 0.5}
    model = tuned_model(live, **masked)
    assert torch.equal(logits(model, batch), plain)
    seen = []
    for _ in range(2):
        torch.manual_seed(3)
        model.networks.train()
        with torch.no_grad():
            seen.append(model(batch).logits)
    assert torch.equal(*seen)
    assert not torch.allclose(seen[0], plain, atol=1e-5)
    slot = slot_of(entry)
    still: dict[str, Any] = {"slots": {slot: {"tune": "frozen"}}}
    if setting != "specaugment":
        with pytest.raises(ParamsError, match=rf"{setting}: given 0\.5 without a CED"):
            tuned_model(live, **still, **masked)
        return
    frozen = tuned_model(live, specaugment=0.5, **still).train()
    streams = [frozen._stream(slot, batch).values for _ in range(2)]
    assert torch.equal(*streams)


@given(frames=st.lists(st.integers(16, 3000), min_size=1, max_size=8), seed=st.integers(0, 99))
def test_a_random_part_lies_within_its_clip(frames: list[int], seed: int) -> None:
    torch.manual_seed(seed)
    clips = torch.tensor(frames)
    start, count = crops(clips, 300, 1.0)
    assert bool(((start >= 0) & (start + count <= clips)).all())
    assert bool((count >= clips.clamp(max=300)).all())
    whole = crops(clips, 300, 0.0)
    assert torch.equal(torch.stack(whole), torch.stack((torch.zeros_like(clips), clips)))


def test_lengths_and_places_of_random_parts_are_evenly_distributed() -> None:
    """From 300 to 500 frames; what is left is before and after it in equal shares."""
    torch.manual_seed(0)
    start, count = crops(torch.full((20_000,), 500), 300, 0.5)
    part = count < 500
    assert float(part.float().mean()) == pytest.approx(0.5 * 200 / 201, abs=0.02)
    assert int(count.min()) == 300
    assert float(count[part].float().mean()) == pytest.approx(399.5, abs=2)
    assert float((start / (500 - count))[part].mean()) == pytest.approx(0.5, abs=0.02)


def test_short_clips_stay_whole_and_windows_are_refused(
    tmp_path: Path, make_manifest: ManifestMaker
) -> None:
    entry = entry_of("ced", tmp_path)
    live = live_of(make_manifest([1.0, 2.9]), {"spectral": entry.build()})
    batch = live.batch(live.labels)
    model = tuned_model(live, random_crop=1.0)
    without_dropout(model)
    assert torch.equal(model.train()(batch).logits, logits(model, batch))
    cut = {"long": "window", "window_seconds": 10.0, "window_hop_seconds": 5.0}
    parts = live_of(
        make_manifest([1.0]), {"spectral": entry_of("ced", tmp_path / "x", **cut).build()}
    )
    with pytest.raises(ParamsError, match=r"random_crop: given 0\.5 for the spectral slot"):
        tuned_model(parts, random_crop=0.5)


def test_a_box_is_as_wide_as_torchaudio_draws_it() -> None:
    """Widths 0 to 23 of 64, each as likely; in the share of rows that was asked for."""
    torch.manual_seed(0)
    covered = boxes(20_000, 64, 24, 1.0)
    widths = covered.sum(1)
    assert (int(widths.min()), int(widths.max())) == (0, 23)
    assert float(widths.float().mean()) == pytest.approx(11.5, abs=0.2)
    steps = covered[:, 1:].int() - covered[:, :-1].int()
    assert int((steps == 1).sum(1).max()) == 1  # one span
    assert int(boxes(9, 5, 192, 1.0).sum(1).max()) <= 4  # a short clip is never all covered
    half = boxes(20_000, 64, 24, 0.5).any(1).float().mean()
    assert float(half) == pytest.approx(0.5 * 23 / 24, abs=0.02)
    assert not boxes(100, 64, 24, 0.0).any()


def test_text_is_not_masked_and_what_is_unknown_is_refused(
    tmp_path: Path, make_manifest: ManifestMaker
) -> None:
    entry = entry_of("bert", tmp_path)
    live = live_of(make_manifest(SECONDS), {"text": entry.build()})
    tuned_model(live, specaugment=0.5)
    with pytest.raises(ParamsError, match=r"e2e.specaugment: given 0.1 for a Linear"):
        mask_time(torch.nn.Linear(2, 2), 0.1)


def test_the_section_lists_all_that_is_wrong() -> None:
    given = {
        "precison": "float32",
        "keep": 0,
        "batch_seconds": -1.0,
        "lora": {"rank": 0, "alpha": "much"},
        "slots": {"prosody": {}, "text": {"tune": "some", "layer_decay": 1.5}, "speech": 3},
    }
    found = tune_problems(given)
    places = [line.partition(":")[0] for line in found]
    assert sorted(places) == sorted(
        [
            *("e2e.precison", "e2e.keep", "e2e.batch_seconds", "e2e.lora.rank", "e2e.lora.alpha"),
            *("e2e.slots.prosody", "e2e.slots.text.tune", "e2e.slots.text.layer_decay"),
            "e2e.slots.speech",
        ]
    )
    with pytest.raises(ParamsError, match=r"e2e\.keep"):
        TuneParams(keep=0)
    assert tune_problems({}) == []
    assert TuneParams().of("text") == SlotTuning()
