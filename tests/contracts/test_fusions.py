"""What every fusion model must be: blind to padding and batch-mates, whole, and able to learn."""

from __future__ import annotations

import importlib
import itertools
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from features.errors import ParamsError
from features.settings.plugins import kinds, load
from features.stream import Stream, StreamSpec
from pipeline.model.base import FusionModel, ModalityDropout, Unit
from pipeline.model.batch import Batch
from pipeline.model.checkpoint import load_model, make_model, save_model
from tests.support.number_ranges import ends

PACKAGE = "pipeline.fusion"
ALL = kinds(PACKAGE)
CLASSES = 4
SPECS = {
    "text": StreamSpec(dim=12),
    "speech": StreamSpec(dim=10, hop_seconds=0.02),
    "nonverbal": StreamSpec(dim=10, hop_seconds=0.02),
    "prosody": StreamSpec(dim=1, bins=16, hop_seconds=0.02),
    "spectral": StreamSpec(dim=6),
}
# Small sizes by kind: tests/contracts/fusions/<kind>.py.
SMALL: dict[str, dict[str, Any]] = {
    kind: importlib.import_module(f"tests.contracts.fusions.{kind}").SMALL for kind in ALL
}


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


def alone(batch: Batch, row: int) -> Batch:
    """One utterance or dialogue, without padding."""
    streams = {slot: Stream.pad([s.unpad()[row]]) for slot, s in batch.streams.items()}
    assert batch.labels is not None
    labels = batch.labels[[row]]
    return Batch(streams, labels if labels.ndim == 1 else labels[labels >= 0][None])


def take(batch: Batch, rows: list[int]) -> Batch:
    streams = {s: Stream(x.values[rows], x.mask[rows]) for s, x in batch.streams.items()}
    assert batch.labels is not None
    return Batch(streams, batch.labels[rows], tuple(batch.ids[row] for row in rows))


@pytest.mark.parametrize("kind", ALL)
def test_padding_and_batch_mates_change_nothing(kind: str) -> None:
    specs = specs_of(kind)
    model = small(kind)
    batch = batch_of(specs, unit=model.unit)
    singles = [alone(batch, row) for row in range(len(batch.ids))]
    with torch.inference_mode():
        together = scored(model(batch).logits, batch)
        apart = torch.cat([scored(model(single).logits, single) for single in singles])
        assert torch.allclose(together, apart, atol=1e-5)


@pytest.mark.parametrize("kind", ALL)
def test_values_under_the_mask_are_never_seen(kind: str) -> None:
    model = small(kind)
    batch = batch_of(specs_of(kind), unit=model.unit)
    spoiled = {}
    for slot, stream in batch.streams.items():
        mask = stream.mask if stream.values.ndim == 2 else stream.mask[..., None]
        spoiled[slot] = Stream(torch.where(mask, stream.values, 3), stream.mask)
    with torch.inference_mode():
        logits, other = model(batch).logits, model(Batch(spoiled)).logits
        assert torch.allclose(scored(logits, batch), scored(other, batch), atol=1e-5)


@pytest.mark.parametrize("kind", ALL)
def test_permuting_a_batch_permutes_the_output(kind: str) -> None:
    model = small(kind)
    batch = batch_of(specs_of(kind), unit=model.unit)
    with torch.inference_mode():
        expected = model(batch).logits[[2, 0, 3, 1]]
        assert torch.allclose(model(take(batch, [2, 0, 3, 1])).logits, expected, atol=1e-5)


@pytest.mark.parametrize("kind", ALL)
def test_gradients_reach_every_parameter(kind: str) -> None:
    model = small(kind)
    batch = batch_of(specs_of(kind), size=16, unit=model.unit)
    model.loss(model(batch), batch).backward()  # type: ignore[no-untyped-call]
    dead = [
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().sum() > 0
    ]
    assert dead == []


@pytest.mark.parametrize("kind", ALL)
def test_any_slot_may_be_empty(kind: str) -> None:
    specs = specs_of(kind)
    for slot in specs:
        rest = {name: spec for name, spec in specs.items() if name != slot}
        for used in (rest, {slot: specs[slot]}):
            model = small(kind, used)
            batch = batch_of(used, unit=model.unit)
            logits = model(batch).logits
            assert batch.labels is not None
            assert logits.shape == (*batch.labels.shape, CLASSES)
            assert torch.isfinite(logits).all()


@pytest.mark.parametrize("kind", ALL)
def test_no_slot_at_all_is_an_error(kind: str) -> None:
    with pytest.raises(ParamsError, match="no slot filled"):
        make_model(kind, SMALL[kind], {}, CLASSES)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ALL)
def test_learns_a_separable_problem(kind: str) -> None:
    specs = specs_of(kind)
    model = small(kind, dropout=0.0)
    # About as many labels either way.
    batch = batch_of(specs, size=8 if model.unit == "dialogue" else 32, unit=model.unit)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        model.loss(model(batch), batch).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    assert batch.labels is not None
    found = scored(model(batch).logits, batch).argmax(1)
    assert found.tolist() == batch.labels[batch.labels >= 0].tolist()


@pytest.mark.parametrize("kind", ALL)
def test_bf16_autocast_is_finite(kind: str) -> None:
    model = small(kind)
    batch = batch_of(specs_of(kind), unit=model.unit)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.isfinite(model.loss(model(batch), batch))


@pytest.mark.parametrize("kind", ALL)
def test_saved_model_is_rebuilt_from_its_two_files(kind: str, tmp_path: Path) -> None:
    specs = specs_of(kind)
    model = small(kind)
    names = [f"class {i}" for i in range(CLASSES)]
    save_model(tmp_path, model, kind=kind, args=SMALL[kind], specs=specs, classes=names)
    again, classes = load_model(tmp_path)
    assert classes == names
    with torch.inference_mode():
        batch = batch_of(specs, unit=model.unit)
        assert torch.equal(model(batch).logits, again(batch).logits)


def count(model: FusionModel) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


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


@pytest.mark.parametrize("probability", [0.2, 0.9])
def test_modality_dropout_never_drops_all(probability: float) -> None:
    torch.manual_seed(0)
    keep = ModalityDropout(probability).draw(20_000, 3)
    assert bool(keep.any(1).all())
    # Conditioned on not losing all three: P(kept) = (1 - p) / (1 - p^3).
    expected = (1 - probability) / (1 - probability**3)
    assert float(keep.float().mean()) == pytest.approx(expected, abs=0.01)


def test_modality_dropout_zeroes_whole_utterances_and_only_in_training() -> None:
    dropout, batch = ModalityDropout(0.5), batch_of(specs_of("heron"), size=64)
    torch.manual_seed(0)
    for slot, stream in dropout(batch.streams).items():
        kept = stream.values.abs().sum((1, 2)) > 0
        assert 0 < int(kept.sum()) < 64
        assert torch.equal(stream.values[kept], batch.streams[slot].values[kept])
        assert torch.equal(stream.mask, batch.streams[slot].mask)
    silent = dropout.eval()(batch.streams)
    assert all(torch.equal(silent[slot].values, batch.streams[slot].values) for slot in silent)


@pytest.mark.parametrize("kind", ALL)
def test_both_ends_of_each_range_train_or_are_refused(kind: str) -> None:
    """Wide models are made, but not filled with weights."""
    specs, loads = specs_of(kind), load(PACKAGE, kind)
    alone = {"heads": 1, "encoder_heads": 1}
    made = 0
    for (setting, value), more in itertools.product(ends(loads), ({}, alone)):
        args = {**SMALL[kind], **{k: v for k, v in more.items() if k in SMALL[kind]}}
        args[setting] = value
        try:
            with torch.device("meta"):
                make_model(kind, args, specs, CLASSES)
        except ParamsError:
            continue
        made += 1
        if value <= 1000:
            model = make_model(kind, args, specs, CLASSES).train()
            batch = batch_of(specs, unit=model.unit)
            loss = model.loss(model(batch), batch)
            loss.backward()  # type: ignore[no-untyped-call]
            assert loss.isfinite(), (setting, value)
    assert made > len(dict(ends(loads)))
