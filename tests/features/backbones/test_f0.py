"""The backbone f0: RMVPE batched = single, its steps; unvoiced audio by all methods."""

from __future__ import annotations

import pickle  # noqa: TID251  as processes that prepare inputs get a backbone
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from features.audio import pitch
from features.backbone.base import module_of
from features.backbones.f0 import F0
from features.errors import CheckpointError, ParamsError
from features.networks import rmvpe
from features.weights.checkpoint import Checkpoint
from tests.conftest import ManifestMaker
from tests.contracts.checkpoints.f0 import golden_weights
from tests.support.models.golden import golden

RAGGED = [0.5, 1.3, 0.11, 0.9, 0.62]  # seconds; 51, 131, 12, 91 and 63 frames: two share a length


@pytest.fixture(scope="module")
def network() -> rmvpe.RMVPE:
    return rmvpe.build(golden_weights())


@pytest.fixture
def backbone(network: rmvpe.RMVPE, monkeypatch: pytest.MonkeyPatch) -> Callable[..., F0]:
    """Makes backbones that share one network, without a checkpoint file."""
    monkeypatch.setattr(Checkpoint, "tensors", lambda *_: {})
    monkeypatch.setattr(rmvpe, "build", lambda *_, **__: network)
    commit = "0" * 40  # else the weights are known by their file
    return lambda **options: F0(method="rmvpe", checkpoint="golden", revision=commit, **options)


class Silent(nn.Module):
    """A network that finds no pitch."""

    def forward(self, mel: Tensor) -> Tensor:
        return torch.zeros(len(mel), mel.shape[-1], rmvpe.N_BINS)


@pytest.mark.slow
@pytest.mark.parametrize("unvoiced", ["interpolate", "bin0"])
def test_batched_equals_single(
    backbone: Callable[..., F0], make_manifest: ManifestMaker, unvoiced: str
) -> None:
    own = backbone(unvoiced=unvoiced, threshold=float(golden("rmvpe.npz")["threshold_b"]))
    utterances = list(make_manifest(RAGGED))
    with torch.inference_mode():
        inputs = own.prepare(utterances)
        saliences = dict(own._saliences(inputs))
        together = own(inputs).unpad()
        for index, utterance in enumerate(utterances):
            single = own.prepare([utterance])
            (_, alone), *_ = own._saliences(single)
            assert np.abs(saliences[index] - alone).max() <= 1e-5 * alone.max()
            assert torch.equal(own(single).unpad()[0], together[index])
    assert {len(tensor) for tensor in inputs.tensors.values()} == {len(utterances)}
    if unvoiced == "bin0":  # the threshold lies amid the saliences: both kinds of frames occur
        assert 0 < sum(int((bins == 0).sum()) for bins in together) < sum(map(len, together))
    assert [len(bins) for bins in together] == [round(s * 16000) // 320 for s in RAGGED]


@pytest.mark.slow
def test_one_pass_for_each_padded_length(
    backbone: Callable[..., F0], make_manifest: ManifestMaker
) -> None:
    own, shapes = backbone(), list[tuple[int, ...]]()
    handle = own.network.register_forward_hook(lambda _m, args, _o: shapes.append(args[0].shape))
    with torch.inference_mode():
        own(own.prepare(list(make_manifest(RAGGED))))
    handle.remove()
    assert sorted(shapes) == [(1, 128, 32), (1, 128, 96), (1, 128, 160), (2, 128, 64)]


@pytest.mark.slow
@pytest.mark.parametrize(("bins", "unvoiced"), [(64, "interpolate"), (512, "bin0")])
def test_steps_are_those_of_the_reference(
    backbone: Callable[..., F0], make_manifest: ManifestMaker, bins: int, unvoiced: str
) -> None:
    """Bins = the 10 ms track, resized to floor(L / 320), gaps treated, quantised; by hand."""
    threshold = float(golden("rmvpe.npz")["threshold_b"])
    own = backbone(bins=bins, unvoiced=unvoiced, threshold=threshold)
    (utterance,) = make_manifest([1.3])
    with torch.inference_mode():
        inputs = own.prepare([utterance])
        (frames,) = own(inputs).unpad()
        (salience,) = own.network(inputs.tensors["mel"][:, :, :131])
    track = rmvpe.salience_to_hz(salience.numpy(), threshold=threshold)
    hz = track[[i * 131 // 65 for i in range(65)]]
    expected = pitch.hz_to_bin(pitch.interpolate_unvoiced(hz), bins=bins)
    if unvoiced == "bin0":
        expected = np.where(hz > 0, pitch.hz_to_bin(hz, bins=bins), 0)
    assert frames.tolist() == expected.tolist()
    assert own.spec.bins == bins


@pytest.mark.parametrize(("unvoiced", "expected"), [("interpolate", 1), ("bin0", 0)])
@pytest.mark.parametrize("method", ["rmvpe", "harvest", "dio"])
def test_fully_unvoiced_audio_has_features(
    method: Any,
    unvoiced: Any,
    expected: int,
    make_manifest: ManifestMaker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Checkpoint, "tensors", lambda *_: {})
    monkeypatch.setattr(rmvpe, "build", lambda *_, **__: Silent())
    own = F0(method=method, checkpoint="silent", unvoiced=unvoiced)
    if method != "rmvpe":
        monkeypatch.setattr(
            "features.backbones.f0.waveform", lambda *_, **__: np.zeros(16000, np.float32)
        )
    (bins,) = own(own.prepare(list(make_manifest([1.0])))).unpad()
    assert bins.tolist() == [expected] * 50
    assert bins.dtype == torch.int64


@pytest.mark.parametrize("unvoiced", ["interpolate", "bin0"])
def test_values_in_hz_are_those_that_bins_are_made_of(
    unvoiced: Any, make_manifest: ManifestMaker
) -> None:
    utterances = list(make_manifest([1.0]))

    def frames(**options: Any) -> Tensor:
        own = F0(method="dio", unvoiced=unvoiced, **options)
        (found,) = own(own.prepare(utterances)).unpad()
        assert found.shape[1:] == (() if own.spec.bins else (own.spec.dim,))
        return found

    hz, log_hz = frames(values="hz")[:, 0], frames(values="log_hz")
    bins, voiced = frames(), F0(method="dio", unvoiced="bin0")
    silent = voiced(voiced.prepare(utterances)).unpad()[0] == 0
    quantised = torch.from_numpy(pitch.hz_to_bin(hz.double().numpy()))
    assert torch.equal(torch.where(hz > 0, quantised, bins), bins)
    assert torch.equal(log_hz[:, 1] == 0, silent)
    assert torch.allclose(log_hz[:, 0].exp().where(hz > 0, torch.zeros(())), hz, rtol=1e-6)
    assert 0 < int(silent.sum()) < len(silent)
    assert bool((hz > 0).all()) is (unvoiced == "interpolate")


@pytest.mark.parametrize("values", ["hz", "log_hz"])
def test_silence_in_hz_is_zeros(
    values: Any, make_manifest: ManifestMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "features.backbones.f0.waveform", lambda *_, **__: np.zeros(16000, np.float32)
    )
    own = F0(values=values)
    (found,) = own(own.prepare(list(make_manifest([1.0])))).unpad()
    assert found.shape == (50, own.spec.dim)
    assert not found.any()


def test_salience_that_is_not_finite_is_an_error(
    make_manifest: ManifestMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = Silent()
    monkeypatch.setattr(broken, "forward", lambda mel: torch.full((1, mel.shape[-1], 360), np.nan))
    monkeypatch.setattr(Checkpoint, "tensors", lambda *_: {})
    monkeypatch.setattr(rmvpe, "build", lambda *_, **__: broken)
    own = F0(method="rmvpe", checkpoint="broken")
    with pytest.raises(CheckpointError, match=r"not finite for utterance 'u0'.*compute_dtype"):
        own(own.prepare(list(make_manifest([0.5]))))


@pytest.mark.slow
def test_workers_prepare_without_the_network(
    backbone: Callable[..., F0], make_manifest: ManifestMaker
) -> None:
    own, utterances = backbone(), list(make_manifest([0.5]))
    content = pickle.dumps(own)
    assert len(content) < 10_000
    copy = pickle.loads(content)
    assert torch.equal(
        copy.prepare(utterances).tensors["mel"], own.prepare(utterances).tensors["mel"]
    )
    assert not hasattr(copy, "network")
    assert module_of(own) is own.network


def test_only_rmvpe_has_a_network_and_weights() -> None:
    own = F0(checkpoint="unread")
    assert module_of(own) is None
    assert own.provenance() == {"estimator": "WORLD harvest", "scale": "1127 ln(1 + f / 700)"}


@pytest.mark.slow
def test_provenance_distinguishes_weights_and_thresholds(backbone: Callable[..., F0]) -> None:
    first = backbone().provenance()
    assert first == backbone().provenance()
    assert first["checkpoint"] == "golden"
    assert len(first["weights_sha256"]) == 64
    assert backbone(threshold=0.05).provenance() != first


@pytest.mark.parametrize("threshold", [-0.1, 1.0])
def test_threshold_is_checked(threshold: float) -> None:
    with pytest.raises(ParamsError, match="threshold"):
        F0(threshold=threshold)
