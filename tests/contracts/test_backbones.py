"""Contract of every backbone, above all: batched equals single.

Kinds are found in features/backbones, their small checkpoints in
tests/contracts/checkpoints/<kind>.py; a kind without such a file needs none.
"""

from __future__ import annotations

import importlib.util
import inspect
import pickle  # noqa: TID251  as processes that prepare inputs get a backbone
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from features.audio import torchaudio_cpu  # noqa: F401  transformers imports torchaudio
from features.audio.pitch import bin_to_hz
from features.backbone.base import Backbone, Pooled, module_of
from features.backbone.entry import PACKAGE, backbone_entry
from features.backbone.windows import Windowed
from features.corpus.utterance import Utterance
from features.errors import CheckpointError, ParamsError, UtteranceError
from features.process.devices import entered, full_float32
from features.settings.plugins import kinds, load
from tests.conftest import RATE, ManifestMaker

RAGGED = [0.5, 1.3, 0.61, 0.9]  # seconds, beside the shortest legal clip
Options = dict[str, Any]


def variants_of(kind: str) -> dict[str, Callable[[Path], Options]]:
    """Writers of small checkpoints by name, or a single one that writes nothing."""
    name = f"tests.contracts.checkpoints.{kind}"
    if importlib.util.find_spec(name) is None:
        return {"": lambda _: {}}
    found: dict[str, Callable[[Path], Options]] = importlib.import_module(name).VARIANTS
    return found


def case(kind: str, variant: str) -> Any:
    """A parameter set; a module of checkpoints may name slow ones in a set `SLOW`."""
    module = f"tests.contracts.checkpoints.{kind}"
    slow = getattr(importlib.import_module(module), "SLOW", ()) if variant else ()
    marks = [pytest.mark.slow] if variant in slow else []
    return pytest.param(kind, variant, id=f"{kind}-{variant}" if variant else kind, marks=marks)


def cases(wanted: Callable[[str], bool] = lambda _: True) -> list[Any]:
    return [
        case(kind, variant)
        for kind in kinds(PACKAGE)
        if kind != "none" and wanted(kind)
        for variant in variants_of(kind)
    ]


def has_layers(kind: str) -> bool:
    return "layer" in inspect.signature(load(PACKAGE, kind)).parameters


def has_weights(kind: str) -> bool:
    return "checkpoint" in inspect.signature(load(PACKAGE, kind)).parameters


class Bench:
    """Writes each checkpoint once and builds each backbone once."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.options: dict[tuple[str, str], Options] = {}
        self.built: dict[tuple[str, str], Backbone] = {}

    def options_of(self, kind: str, variant: str) -> Options:
        key = (kind, variant)
        if key not in self.options:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                self.options[key] = variants_of(kind)[variant](self.root / kind / (variant or "x"))
        return self.options[key]

    def fresh(self, kind: str, variant: str, **more: Any) -> Backbone:
        entry = {"kind": kind, **self.options_of(kind, variant), **more}
        return backbone_entry("x", entry).build()

    def get(self, kind: str, variant: str) -> Backbone:
        key = (kind, variant)
        if key not in self.built:
            self.built[key] = self.fresh(kind, variant)
        return self.built[key]


@pytest.fixture(scope="session")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("checkpoints"))


def frames_of(backbone: Backbone, utterances: list[Utterance]) -> list[torch.Tensor]:
    with torch.inference_mode():
        return backbone(backbone.prepare(utterances)).unpad()


def shortest(backbone: Backbone, make_manifest: ManifestMaker) -> int:
    """Samples of the shortest clip that a backbone takes, as its refusal of a shorter one says."""
    (blip,) = make_manifest([1 / RATE], folder="blip")
    with pytest.raises(UtteranceError, match=r"has 1 samples .*at least \d+") as refusal:
        backbone.prepare([blip])
    (samples,) = re.findall(r"at least (\d+)", refusal.value.reason)
    return int(samples)


def ragged(backbone: Backbone, make_manifest: ManifestMaker) -> list[Utterance]:
    """Clips of different lengths, the shortest legal one and one that is there twice."""
    seconds = list(RAGGED)
    if backbone.reads == "audio":
        seconds.insert(2, shortest(backbone, make_manifest) / RATE)
    utterances = list(make_manifest(seconds))
    return [*utterances, utterances[0]]


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["frames", "mean", "first", "mean_std", "windows"])
@pytest.mark.parametrize(("kind", "variant"), cases())
def test_batched_equals_single(
    kind: str, variant: str, pooling: Any, bench: Bench, make_manifest: ManifestMaker
) -> None:
    """With any other utterances in the batch, in any order."""
    backbone = bench.get(kind, variant)
    if pooling == "windows":
        if backbone.reads != "audio" or backbone.spec.hop_seconds is None:
            pytest.skip("has no frames in time")
        backbone = Windowed(backbone, 0.6, 0.2)
    elif pooling != "frames":
        if backbone.spec.bins is not None:
            pytest.skip("bins are not pooled")
        backbone = Pooled(backbone, pooling)
    utterances = ragged(backbone, make_manifest)
    alone = {u.id: frames_of(backbone, [u])[0] for u in utterances}
    if isinstance(backbone, Windowed):
        for utterance in utterances:
            (whole,) = frames_of(backbone.backbone, [utterance])
            assert alone[utterance.id].shape == whole.shape
    for batch in (utterances, utterances[::-1], utterances[1::2]):
        for utterance, frames in zip(batch, frames_of(backbone, batch), strict=True):
            expected = alone[utterance.id]
            assert frames.shape == expected.shape
            assert len(frames) > 0
            scale = float(expected.abs().max().clamp(min=1e-6))
            assert float((frames - expected).abs().max()) <= 1e-5 * scale


@pytest.mark.gpu
@pytest.mark.parametrize(("kind", "variant"), cases())
def test_features_of_a_gpu_are_those_of_the_cpu(
    kind: str, variant: str, bench: Bench, make_manifest: ManifestMaker
) -> None:
    """In float32, on the last one: the first is what a mistake would take."""
    backbone = bench.fresh(kind, variant)
    network, device = module_of(backbone), f"cuda:{torch.cuda.device_count() - 1}"
    utterances = ragged(backbone, make_manifest)
    expected = frames_of(backbone, utterances)
    if network is not None:
        network.to(device)
    with entered(device), full_float32(), torch.inference_mode():
        stream = backbone(backbone.prepare(utterances).to(device)).to("cpu")
    for wanted, found in zip(expected, stream.unpad(), strict=True):
        assert wanted.shape == found.shape
        if backbone.spec.bins is None:
            assert float((found - wanted).norm()) <= 1e-4 * float(wanted.norm())
        else:  # of random weights: peaks of a frame are about equally high
            assert float((found != wanted).float().mean()) <= 0.05


@pytest.mark.parametrize(("kind", "variant"), cases())
def test_contract(kind: str, variant: str, bench: Bench, make_manifest: ManifestMaker) -> None:
    backbone = bench.get(kind, variant)
    long, short = make_manifest([1.0, 0.7])
    with torch.inference_mode():
        inputs = backbone.prepare([long, short])
        stream = backbone(inputs)
    assert all(len(tensor) == 2 for tensor in inputs.tensors.values())
    assert stream.mask.dtype == torch.bool
    assert not bool(stream.values[~stream.mask].any()), "frames of padding hold zeros"
    spec, frames = backbone.spec, stream.unpad()[0]
    assert frames.shape[1:] == (() if spec.bins is not None else (spec.dim,))
    assert bool(frames.isfinite().all())
    if backbone.reads == "audio" and spec.hop_seconds is None:  # one vector an utterance
        assert len(frames) == 1
        assert bool((stream.values[0] != stream.values[1]).any())
    else:
        assert spec.bins is not None or bool((frames != frames[0]).any())
    if spec.hop_seconds is not None:
        assert abs(len(frames) * spec.hop_seconds - 1.0) <= 2 * spec.hop_seconds
    words, sound = Utterance("a", text="x"), Utterance("a", audio="x.wav")
    without = {"audio": words, "text": sound, "asr": words}[backbone.reads]
    with pytest.raises(UtteranceError, match=f"has no {backbone.reads}"):
        backbone.prepare([without])


@pytest.mark.parametrize(("kind", "variant"), cases())
def test_networks_are_frozen_and_identified_by_their_weights(
    kind: str, variant: str, bench: Bench
) -> None:
    backbone = bench.get(kind, variant)
    assert backbone.provenance() == bench.fresh(kind, variant).provenance()
    network = module_of(backbone)
    assert ("weights_sha256" in backbone.provenance()) == (network is not None)
    if network is not None:
        assert not network.training
        assert not any(parameter.requires_grad for parameter in network.parameters())
        assert {parameter.dtype for parameter in network.parameters()} == {torch.float32}
        first = next(network.parameters())
        before = backbone.provenance()["weights_sha256"]
        saved = first.data.clone()
        first.data += 1.0
        assert backbone.provenance()["weights_sha256"] != before
        first.data.copy_(saved)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "variant"), cases())
def test_processes_that_prepare_get_no_network(
    kind: str, variant: str, bench: Bench, make_manifest: ManifestMaker
) -> None:
    backbone = bench.get(kind, variant)
    sent = pickle.dumps(backbone)
    front_end: Backbone = pickle.loads(sent)
    assert module_of(front_end) is None
    modules = [value for value in vars(front_end).values() if isinstance(value, nn.Module)]
    assert not any(list(module.parameters()) for module in modules)
    utterances = ragged(backbone, make_manifest)
    ours, theirs = backbone.prepare(utterances), front_end.prepare(utterances)
    assert ours.ids == theirs.ids
    assert ours.tensors.keys() == theirs.tensors.keys()
    assert all(torch.equal(ours.tensors[name], theirs.tensors[name]) for name in ours.tensors)


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "variant"), cases(has_layers))
def test_several_layers_are_concatenated(
    kind: str, variant: str, bench: Bench, make_manifest: ManifestMaker
) -> None:
    utterances = list(make_manifest([0.7, 0.4]))

    def states(layer: Any) -> list[torch.Tensor]:
        return frames_of(bench.fresh(kind, variant, layer=layer), utterances)

    every = bench.fresh(kind, variant, layer="all")
    count, width = every.spec.layers, every.spec.dim // every.spec.layers
    single = bench.get(kind, variant).spec
    assert (single.layers, single.dim) == (1, width)
    numbers = every.provenance()["layer"]
    top = numbers[-1]
    assert count > 2
    assert numbers == list(range(top + 1 - count, top + 1))
    bottom, last, stack = states(numbers[0]), states(-1), states([top, numbers[1]])
    for number, frames in enumerate(frames_of(every, utterances)):
        parts = frames.split(width, dim=1)  # type: ignore[no-untyped-call]
        assert torch.allclose(parts[0], bottom[number], atol=1e-5)
        assert torch.allclose(parts[-1], last[number], atol=1e-5)
        assert torch.allclose(torch.cat([parts[-1], parts[1]], 1), stack[number], atol=1e-5)
    for wrong, reason in ((top + 1, "layer"), ([top, -1], "different"), ([], "different")):
        with pytest.raises(ParamsError, match=reason):
            bench.fresh(kind, variant, layer=wrong)


@pytest.mark.parametrize(("kind", "variant"), cases())
def test_too_short_audio_is_rejected(
    kind: str, variant: str, bench: Bench, make_manifest: ManifestMaker
) -> None:
    backbone = bench.get(kind, variant)
    if backbone.reads != "audio":
        pytest.skip("reads no audio")
    least = shortest(backbone, make_manifest)
    legal, short = make_manifest([least / RATE, (least - 1) / RATE])
    assert len(frames_of(backbone, [legal])[0]) > 0
    with pytest.raises(UtteranceError, match=rf"{least - 1} samples.*at least {least}"):
        backbone.prepare([legal, short])


@pytest.mark.parametrize("kind", [k for k in kinds(PACKAGE) if has_weights(k) and k != "f0"])
def test_missing_checkpoint_says_what_to_download_and_where(kind: str, bench: Bench) -> None:
    bench.options_of(kind, next(iter(variants_of(kind))))  # which may install a stand-in
    entry = backbone_entry("x", {"kind": kind, "checkpoint": "nobody/nothing"})
    with pytest.raises(CheckpointError, match=r"'nobody/nothing'.*\n.*HERONRY_CHECKPOINTS"):
        entry.build()


def test_f0_finds_the_pitch(make_manifest: ManifestMaker) -> None:
    (utterance,) = make_manifest([1.0], start=2)  # 180 Hz
    for method in ("harvest", "dio"):
        backbone = backbone_entry("x", {"kind": "f0", "method": method}).build()
        (bins,) = frames_of(backbone, [utterance])
        assert np.median(bin_to_hz(bins.numpy())) == pytest.approx(180, abs=3)


def test_bins_cannot_be_pooled() -> None:
    with pytest.raises(ParamsError, match="bins cannot be pooled"):
        backbone_entry("x", {"kind": "f0", "pooling": "mean"}).build()


@pytest.mark.parametrize("kind", [kind for kind in kinds(PACKAGE) if has_weights(kind)])
def test_a_kind_with_weights_brings_a_small_checkpoint(kind: str) -> None:
    """Without it, no test above would run it."""
    assert "" not in variants_of(kind), f"tests/contracts/checkpoints/{kind}.py is missing"
