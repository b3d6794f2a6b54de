"""Live backbones under a fusion are what the fusion is on their caches, until they are trained."""

from __future__ import annotations

import copy
import itertools
from pathlib import Path

import pytest
import torch
from torch import nn

from features.audio import torchaudio_cpu  # noqa: F401  transformers imports torchaudio
from features.backbone.base import Inputs
from features.backbone.entry import BackboneEntry
from features.errors import ParamsError
from features.stream import Stream, StreamSpec
from pipeline.e2e.model import EndToEnd
from pipeline.model.base import FusionModel
from pipeline.model.batch import Batch, Prediction
from pipeline.model.checkpoint import make_model
from pipeline.params.training import TrainParams
from pipeline.params.tuning import TuneParams
from pipeline.training.loop import begin, micro_step, train_epoch
from pipeline.training.predict import evaluate
from tests.conftest import ManifestMaker
from tests.support.models.small_fusions import ALL, SMALL, specs_of
from tests.support.models.small_live import (
    FAMILIES,
    cached_of,
    entry_of,
    live_of,
    logits,
    slot_of,
    tuned_model,
    without_dropout,
)

SECONDS = [0.3, 0.9, 0.5, 0.31, 0.7, 0.4]
HERON_PARAMETERS = 320_417_800  # with RoBERTa-base, HuBERT-base and voc2vec-hubert
MASKING = 2 * 768  # of them: vectors that stand for masked frames, which are not made here
FRONT_END = 4_200_448  # the convolutions of a speech network of base size
BOUND_16 = 2**-11  # relative rounding of float16
FEW = ("roberta", "hubert_group", "hubert_layer", "whisper")


class Meta:
    """A backbone of which only the size is asked."""

    trainable = True

    def __init__(self, network: nn.Module, reads: str) -> None:
        self.network, self.reads, self.spec = network, reads, StreamSpec(768)


def parameters_of(model: nn.Module) -> tuple[int, int]:
    """Number of all parameters, and of those that are trained."""
    sizes = [(each.numel(), each.requires_grad) for each in model.parameters()]
    return sum(size for size, _ in sizes), sum(size for size, trained in sizes if trained)


@pytest.mark.parametrize("masking", [True, False])
def test_heron_has_its_published_number_of_parameters(masking: bool) -> None:
    from transformers import HubertConfig, HubertModel, RobertaConfig, RobertaModel

    roberta = RobertaConfig(vocab_size=50_265, max_position_embeddings=514, type_vocab_size=1)
    speech = HubertConfig(**({} if masking else {"mask_time_prob": 0.0, "mask_feature_prob": 0.0}))
    with torch.device("meta"):
        networks = {
            "text": Meta(RobertaModel(roberta, add_pooling_layer=False), "text"),
            "speech": Meta(HubertModel(speech), "audio"),
            "nonverbal": Meta(HubertModel(speech), "audio"),
        }
        specs = {slot: backbone.spec for slot, backbone in networks.items()}
        fusion = make_model("heron", {}, specs, 8)
        model = EndToEnd(fusion, networks, TuneParams())  # type: ignore[arg-type]
    size, trained = parameters_of(model)
    assert size == HERON_PARAMETERS - (0 if masking else MASKING)
    assert trained == size - 2 * FRONT_END
    all_of_it = TuneParams(slots={slot: {"freeze_front_end": False} for slot in networks})
    assert parameters_of(EndToEnd(fusion, networks, all_of_it)) == (size, size)  # type: ignore[arg-type]


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_live_equals_cached(
    family: str, tmp_path: Path, private_store: Path, make_manifest: ManifestMaker
) -> None:
    """The same object twice: to 1e-5 of a float32 cache, to its rounding of a float16 one."""
    manifest, entry = make_manifest(SECONDS), entry_of(family, tmp_path)
    slot = slot_of(entry)
    live = live_of(manifest, {slot: entry.build()})
    model = tuned_model(live, slots={slot: {"freeze_front_end": False}})
    batch = live.batch(live.labels)
    whole = logits(model, batch)
    exact = cached_of(manifest, {slot: entry}, tmp_path, private_store, "float32")
    streams = exact.batch(live.labels)
    assert torch.allclose(whole, logits(model.fusion, streams), atol=1e-5)
    half = cached_of(manifest, {slot: entry}, tmp_path, private_store, "float16")
    rounded = half.batch(live.labels).streams[slot].values
    values = streams.streams[slot].values
    assert bool(((rounded - values).abs() <= BOUND_16 * values.abs() + 1e-7).all())
    moved = (whole - logits(model.fusion, half.batch(live.labels))).abs().max()
    assert float(moved) < 20 * BOUND_16 * float(whole.abs().max())


@pytest.mark.parametrize("pooling", ["frames", "mean"])
def test_long_recordings_live_equal_cached_and_are_trained_on(
    pooling: str, tmp_path: Path, private_store: Path, make_manifest: ManifestMaker
) -> None:
    """In windows, whose gradients add up; a batch holds recordings of one and of several."""
    windows = {"long": "window", "window_seconds": 1.0, "window_hop_seconds": 0.6}
    entry = entry_of("hubert_group", tmp_path, pooling=pooling, **windows)
    manifest = make_manifest([0.4, 2.1, 1.2])
    live = live_of(manifest, {"speech": entry.build()})
    model = tuned_model(live, slots={"speech": {"tune": "full"}})
    exact = cached_of(manifest, {"speech": entry}, tmp_path, private_store, "float32")
    found, expected = logits(model, live.batch(live.labels)), exact.batch(live.labels)
    assert torch.allclose(found, logits(model.fusion, expected), atol=1e-5)
    training = begin(model, live, live.labels, TrainParams(lr=1e-2), seed=0)
    train_epoch(training, live, live.labels, TrainParams(batch_size=3))
    assert not torch.allclose(found, logits(model, live.batch(live.labels)), atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("family", FEW)
def test_without_a_rate_an_epoch_changes_nothing(
    family: str, tmp_path: Path, make_manifest: ManifestMaker
) -> None:
    manifest, entry = make_manifest(SECONDS), entry_of(family, tmp_path)
    live = live_of(manifest, {slot_of(entry): entry.build()})
    model = tuned_model(live)
    without_dropout(model)
    before = logits(model, live.batch(live.labels))
    params = TrainParams(batch_size=2, accumulate=2, epochs=3)
    training = begin(model, live, live.labels, params, seed=0)
    training.schedule.peak = 0.0
    loss = train_epoch(training, live, live.labels, params)
    assert loss == pytest.approx(evaluate(model, live, live.labels).loss, rel=1e-5)
    assert torch.equal(before, logits(model, live.batch(live.labels)))
    training.schedule.peak = 1e-3
    train_epoch(training, live, live.labels, params)
    assert not torch.allclose(before, logits(model, live.batch(live.labels)), atol=1e-4)


@pytest.mark.parametrize("pooling", ["mean", "frames"])
def test_ced_under_the_mdat_system_is_what_its_cache_is(
    pooling: str, tmp_path: Path, private_store: Path, make_manifest: ManifestMaker
) -> None:
    """Beside live words: both forms of CED, of which `gat` averages frames."""
    manifest = make_manifest(SECONDS)
    entries = {
        "text": entry_of("roberta", tmp_path),
        "spectral": entry_of("ced", tmp_path, pooling=pooling),
    }
    live = live_of(manifest, {slot: entry.build() for slot, entry in entries.items()})
    torch.manual_seed(0)
    fusion = make_model("gat", {"d_model": 8, "encoder_heads": 2}, live.specs, 2)
    model = EndToEnd(fusion, live.backbones, TuneParams())
    cached = cached_of(manifest, entries, tmp_path, private_store, "float32")
    whole = logits(model, live.batch(live.labels))
    assert torch.allclose(whole, logits(fusion, cached.batch(live.labels)), atol=1e-5)


TUNINGS = {
    "full": {"freeze_front_end": False},
    "front_end_frozen": {},
    "two_layers_frozen": {"freeze_layers": 2},
    "lora": {"tune": "lora"},
    "frozen": {"tune": "frozen"},
}


SHARED = ("albert", "two_layers_frozen")  # its layers are one block


@pytest.mark.slow
@pytest.mark.parametrize(
    ("family", "tuning"),
    [case for case in itertools.product(sorted(FAMILIES), TUNINGS) if case != SHARED],
)
def test_gradients_reach_what_is_trained_and_nothing_else(
    family: str, tuning: str, tmp_path: Path, make_manifest: ManifestMaker
) -> None:
    """After a few steps: at the first, adapters' A have none, since B is zero."""
    entry = entry_of(family, tmp_path)
    live = live_of(make_manifest(SECONDS[:4]), {slot_of(entry): entry.build()})
    model = tuned_model(live, slots={slot_of(entry): TUNINGS[tuning]})
    before = {name: value.clone() for name, value in model.named_parameters()}
    training = begin(model, live, live.labels, TrainParams(lr=1e-2, weight_decay=0.0), seed=0)
    for _ in range(3):
        train_epoch(training, live, live.labels, TrainParams(batch_size=4))
    model.train()
    micro_step(training, live.batch(live.labels))
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    reached = {name for name, p in model.named_parameters() if p.grad is not None}
    assert reached == trained
    # A bias of the keys moves all scores of a query alike: its gradient is zero, but for rounding.
    moved = {n for n, p in model.named_parameters() if not torch.equal(p, before[n])}
    assert moved <= trained
    assert {n for n in trained - moved if "k_proj.bias" not in n and ".key.bias" not in n} == set()
    assert any(name.startswith("networks.") for name in trained) == (tuning != "frozen")
    if tuning == "full" and family != "whisper":
        fixed = {name for name in before if name.endswith("embed_positions.weight")}
        assert trained == set(before) - fixed


def test_what_is_frozen_stays_in_eval_mode(tmp_path: Path, make_manifest: ManifestMaker) -> None:
    entry = entry_of("hubert_group", tmp_path)
    live = live_of(make_manifest(SECONDS[:2]), {"speech": entry.build()})
    for settings, resting in (({"tune": "frozen"}, 3), ({"freeze_layers": 2}, 2), ({}, 0)):
        model = tuned_model(live, slots={"speech": settings}).train()
        network = model.networks["speech"]
        assert model.fusion.training
        layers: list[nn.Module] = list(network.encoder.layers)  # type: ignore[union-attr, arg-type]
        assert [layer.training for layer in layers] == [False] * resting + [True] * (3 - resting)
        front_end: nn.Module = network.feature_extractor  # type: ignore[assignment]
        assert not any(module.training for module in front_end.modules())
        assert not any(module.training for module in model.eval().modules())
    stream = tuned_model(live, slots={"speech": {"tune": "frozen"}}).train()
    assert not stream._stream("speech", live.batch(live.labels)).values.requires_grad


@pytest.mark.parametrize("family", FEW)
def test_checkpointing_changes_memory_alone(
    family: str, tmp_path: Path, make_manifest: ManifestMaker
) -> None:
    """The same gradients, dropout included, since blocks are computed again with the same draws."""
    entry = entry_of(family, tmp_path)
    manifest, gradients = make_manifest(SECONDS[:3]), []
    for checkpointing in (False, True):
        live = live_of(manifest, {slot_of(entry): entry.build()})
        model = tuned_model(live, gradient_checkpointing=checkpointing)
        training = begin(model, live, live.labels, TrainParams(), seed=0)
        torch.manual_seed(1)
        model.train()
        micro_step(training, live.batch(live.labels))
        gradients.append({n: p.grad for n, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name, gradient in gradients[0].items():
        assert torch.allclose(gradient, gradients[1][name], atol=1e-6), name


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_reduced_precision_is_near_and_weights_stay_float32(
    precision: str, tmp_path: Path, make_manifest: ManifestMaker
) -> None:
    entry = entry_of("hubert_layer", tmp_path)
    live = live_of(make_manifest(SECONDS[:3]), {"speech": entry.build()})
    batch = live.batch(live.labels)
    whole = logits(tuned_model(live), batch)
    model = tuned_model(live, precision=precision)
    reduced = logits(model, batch)
    assert reduced.dtype == torch.float32
    assert 0 < float((whole - reduced).abs().max()) < 0.05
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}
    training = begin(model, live, live.labels, TrainParams(), seed=0)
    assert training.scaler.is_enabled() == (precision == "float16")
    before = copy.deepcopy(model.state_dict())
    for _ in range(8):  # a step whose scale was too large is left out, and the scale halved
        train_epoch(training, live, live.labels, TrainParams())
    assert any(not torch.equal(value, before[name]) for name, value in model.state_dict().items())


class Turns(FusionModel):
    """Over dialogues: each turn by itself."""

    unit = "dialogue"

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, 2)

    def forward(self, batch: Batch) -> Prediction:
        return Prediction(self.linear(batch.streams["text"].values))

    def loss(self, prediction: Prediction, batch: Batch) -> torch.Tensor:
        assert batch.labels is not None
        known = batch.labels >= 0
        loss: torch.Tensor = self.criterion(prediction.logits[known], batch.labels[known])
        return loss


def dialogues(entry: BackboneEntry) -> EndToEnd:
    backbone = entry.build()
    return EndToEnd(Turns(backbone.spec.dim), {"text": backbone}, TuneParams())


def test_dialogues_live_equal_cached(
    tmp_path: Path, private_store: Path, make_manifest: ManifestMaker
) -> None:
    manifest = make_manifest([0.1] * 5)
    entry = entry_of("bert", tmp_path, pooling="mean")
    model = dialogues(entry)
    live = live_of(manifest, model.backbones)
    cached = cached_of(manifest, {"text": entry}, tmp_path, private_store, "float32")
    both = [live.labels[:3], live.labels[3:]]
    mine, theirs = live.dialogue_batch(both), cached.dialogue_batch(both)
    assert mine.labels is not None
    assert theirs.labels is not None
    assert torch.equal(mine.labels, theirs.labels)
    assert torch.allclose(logits(model, mine), logits(model.fusion, theirs), atol=1e-5)
    params = TrainParams(batch_size=1)
    training = begin(model, live, live.labels, params, seed=0)
    assert train_epoch(training, live, live.labels, params) > 0


def test_frames_pooled_by_attention_live_equal_cached_and_train_before_any_fusion(
    tmp_path: Path, private_store: Path, make_manifest: ManifestMaker
) -> None:
    manifest, entry = make_manifest([0.1] * 6), entry_of("bert", tmp_path)
    cached = cached_of(manifest, {"text": entry}, tmp_path, private_store, "float32")
    live = live_of(manifest, {"text": entry.build()})
    for kind in ALL:
        if "text" not in specs_of(kind):
            continue
        torch.manual_seed(0)
        args = SMALL[kind] | ({"level": "frame"} if kind == "lpgnet" else {})
        pooled = {"attentive_statistics": ["text"], "attention_width": 8}
        fusion = make_model(kind, args, live.specs, 2, inputs=pooled)
        model = EndToEnd(fusion, live.backbones, TuneParams())
        batch = live.batch(live.labels)
        theirs = logits(fusion, cached.batch(cached.labels))
        assert torch.allclose(logits(model, batch), theirs, atol=1e-5), kind
        training = begin(model, live, live.labels, TrainParams(), seed=0)
        model.train()
        micro_step(training, batch)
        gradients = [p.grad for p in model.networks["text"].parameters() if p.grad is not None]
        assert all(gradient.isfinite().all() for gradient in gradients), kind
        assert any(gradient.any() for gradient in gradients), kind


def test_a_model_over_dialogues_takes_no_frames(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="one vector a turn"):
        dialogues(entry_of("bert", tmp_path))


class Signal:
    """A backbone without a network."""

    reads, trainable, spec = "audio", False, StreamSpec(4)

    def prepare(self, utterances: list[object]) -> Inputs:
        return Inputs(("u",) * len(utterances), {"x": torch.ones(len(utterances), 2, 4)})

    def __call__(self, inputs: Inputs) -> Stream:
        values = inputs.tensors["x"]
        return Stream(values, values.new_ones(values.shape[:2], dtype=torch.bool))


def test_signal_processing_takes_part(make_manifest: ManifestMaker) -> None:
    live = live_of(make_manifest(SECONDS[:2]), {"speech": Signal()})
    model = tuned_model(live)
    assert logits(model, live.batch(live.labels)).shape == (2, 2)
    assert not model.networks


def test_a_network_without_gradients_has_to_be_frozen(tmp_path: Path) -> None:
    backbone = entry_of("bert", tmp_path).build()
    backbone.trainable = False
    fusion = make_model("concat", {"d_model": 4}, {"text": backbone.spec}, 2)
    with pytest.raises(ParamsError, match=r"e2e.slots.text.tune.*expected 'frozen'"):
        EndToEnd(fusion, {"text": backbone}, TuneParams())
    EndToEnd(fusion, {"text": backbone}, TuneParams(slots={"text": {"tune": "frozen"}}))
