"""RMVPE equals the public code (mel, network, decoding) and loads its checkpoints."""

from __future__ import annotations

import pickle  # noqa: TID251  as processes that prepare inputs get a backbone
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis.strategies as st
import numpy as np
import pytest
import torch
from hypothesis import given
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from features.backbones.f0 import F0
from features.errors import CheckpointError, ParamsError
from features.networks import rmvpe
from tests.contracts.checkpoints.f0 import golden_weights
from tests.support.models.golden import golden

Weights = dict[str, Tensor]


@pytest.fixture(scope="module")
def network() -> rmvpe.RMVPE:
    return rmvpe.build(golden_weights())


def audio() -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.asarray(golden("rmvpe.npz")["pcm"] / np.float32(32768), np.float32)


def scalars() -> Weights:
    """Tensors of the right names and shapes, each with one repeated number: a few bytes."""
    with torch.device("meta"):
        state = rmvpe.build().state_dict()
    return {
        name: torch.tensor(number % 1024, dtype=own.dtype).expand(own.shape)
        for number, (name, own) in enumerate(state.items())
    }


def unused() -> Weights:
    """The entries that only the yxlllc checkpoint has, fifty of them."""
    return {f"unet.tf.layers.{i}.conv.{j}": torch.ones(2) for i in range(5) for j in range(10)}


def rmvpe_from(checkpoint: Path | str) -> F0:
    return F0(method="rmvpe", checkpoint=str(checkpoint))


# Parity


def test_names_shapes_and_counts_are_those_of_the_public_network() -> None:
    with torch.device("meta"):
        network = rmvpe.build()
    public = {e["key"]: (e["shape"], e["dtype"]) for e in golden("rmvpe_keys.json")["parameters"]}
    own = {k: (list(v.shape), str(v.dtype)[6:]) for k, v in network.state_dict().items()}
    assert own == public
    assert len(own) == 741
    assert sum(p.numel() for p in network.parameters()) == 90_423_165


def test_log_mel_equals_the_reference() -> None:
    expected = golden("rmvpe.npz")["logmel"]
    assert np.abs(rmvpe.log_mel(audio()).numpy() - expected).max() < 3e-4


def test_mel_bank_equals_the_reference() -> None:
    bank = rmvpe._window_and_bank()[1].numpy()
    assert np.abs(bank - golden("mel_filterbanks.npz")["rmvpe_128x513"]).max() < 1e-6


@pytest.mark.slow
def test_weights_are_those_of_the_recipe(network: rmvpe.RMVPE) -> None:
    state = network.state_dict()
    for entry in golden("rmvpe_keys.json")["parameters"]:
        if "sum" in entry:
            assert float(state[entry["key"]].double().sum()) == pytest.approx(
                entry["sum"], abs=1e-6
            )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mel", "salience"), [("logmel", "salience"), ("mel64", "salience64"), ("mel40", "salience40")]
)
def test_salience_equals_the_reference(network: rmvpe.RMVPE, mel: str, salience: str) -> None:
    vectors = golden("rmvpe.npz")
    with torch.inference_mode():
        (own,) = network(torch.from_numpy(vectors[mel])[None])
    assert np.abs(own.numpy() - vectors[salience]).max() < 1e-5


@pytest.mark.slow
def test_inner_states_equal_the_reference(network: rmvpe.RMVPE) -> None:
    vectors, seen = golden("rmvpe.npz"), dict[str, Tensor]()
    taps: dict[str, tuple[str, Callable[[Any], Tensor]]] = {
        "tap_input_bn": ("unet.encoder.bn", lambda x: x),
        "tap_encoder0_pooled": ("unet.encoder.layers.0", lambda x: nn.functional.avg_pool2d(x, 2)),
        "tap_encoder4_pooled": ("unet.encoder.layers.4", lambda x: nn.functional.avg_pool2d(x, 2)),
        "tap_intermediate": ("unet.intermediate", lambda x: x),
        "tap_decoder0": ("unet.decoder.layers.0", lambda x: x),
        "tap_decoder4_ch0to3": ("unet.decoder.layers.4", lambda x: x[:, :4]),
        "tap_cnn": ("cnn", lambda x: x),
        "tap_bigru": ("fc.0", lambda x: x),
    }

    def note(name: str) -> Callable[[nn.Module, Any, Tensor], None]:
        return lambda _module, _inputs, output: seen.update({name: output})

    handles = [network.get_submodule(m).register_forward_hook(note(m)) for m, _ in taps.values()]
    with torch.inference_mode():
        network(torch.from_numpy(vectors["mel64"])[None])
    for handle in handles:
        handle.remove()
    for tap, (module, view) in taps.items():
        assert np.abs(view(seen[module])[0].numpy() - vectors[tap]).max() < 5e-5, tap


@pytest.mark.slow
def test_frequency_equals_the_reference(network: rmvpe.RMVPE) -> None:
    vectors = golden("rmvpe.npz")
    with torch.inference_mode():
        (salience,) = network(rmvpe.log_mel(audio())[None])
    clear = vectors["argmax_margin"] > 2e-4
    assert clear.mean() > 0.9
    for name, threshold in {"f0_t03": 0.03, "f0_tb": float(vectors["threshold_b"])}.items():
        hz = rmvpe.salience_to_hz(salience.numpy(), threshold=threshold)
        assert np.allclose(hz[clear], vectors[name][clear], rtol=1e-4, atol=0)
    assert 0 < np.count_nonzero(vectors["f0_tb"]) < len(clear)


# Decoding


def cents_of(hz: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cents above 10 Hz, the inverse of `cents_to_hz`."""
    return np.asarray(1200.0 * np.log2(hz / rmvpe.CENTS_HZ))


@pytest.mark.parametrize(("name", "threshold"), [("t03", 0.03), ("t05", 0.05)])
def test_decoding_equals_the_reference(name: str, threshold: float) -> None:
    vectors = golden("rmvpe_decode.npz")
    hz = rmvpe.salience_to_hz(vectors["salience"], threshold=threshold)
    expected = vectors[f"f0_{name}"]
    voiced = expected > 0
    assert np.array_equal(hz > 0, voiced)
    assert np.abs(cents_of(hz[voiced]) - vectors[f"cents_{name}"][voiced]).max() < 0.01
    assert np.allclose(hz, expected, rtol=1e-5, atol=0)


def test_salience_of_nothing_is_unvoiced() -> None:
    nothing = np.zeros((3, rmvpe.N_BINS), np.float32)
    assert rmvpe.salience_to_hz(nothing, threshold=0.0).tolist() == [0.0] * 3


@given(st.floats(31.7, 2005.0))
def test_cents_invert(hz: float) -> None:
    assert rmvpe.cents_to_hz(cents_of(np.array([hz])))[0] == pytest.approx(hz, rel=1e-12)


@given(st.floats(80.0, 7000.0), st.floats(0.01, 1.0))
def test_a_peak_is_decoded_to_its_centre(above: float, height: float) -> None:
    """A symmetric peak anywhere between two bins, far from both ends, however high."""
    centre = rmvpe.FIRST_CENTS + above
    peak = height * np.exp(-0.5 * ((rmvpe.CENTS - centre) / 25.0) ** 2)
    (cents,) = rmvpe.salience_to_cents(peak[None].astype(np.float32))
    assert cents == pytest.approx(centre, abs=4.0)


# Checkpoints


@pytest.mark.slow
@pytest.mark.parametrize("form", ["flat", "wrapped"])
@pytest.mark.parametrize("named", ["folder", "file"])
def test_both_public_forms_load(tmp_path: Path, form: str, named: str) -> None:
    weights = scalars()
    path = tmp_path / {"flat": "rmvpe.pt", "wrapped": "model.pt"}[form]
    torch.save(weights if form == "flat" else {"model": weights | unused()}, path)
    backbone = rmvpe_from(path if named == "file" else tmp_path)
    state = backbone.network.state_dict()
    assert state.keys() == weights.keys()
    assert all(torch.equal(state[name], weights[name]) for name in weights)
    assert not any(p.requires_grad for p in backbone.network.parameters())
    assert not backbone.network.training


@pytest.mark.slow
def test_safetensors_and_half_precision_load(tmp_path: Path) -> None:
    weights = {
        name: tensor.half() if tensor.is_floating_point() else tensor
        for name, tensor in scalars().items()
    }
    path = tmp_path / "rmvpe.safetensors"
    save_file({name: tensor.contiguous() for name, tensor in weights.items()}, path)
    state = rmvpe_from(tmp_path).network.state_dict()
    assert {str(tensor.dtype) for tensor in state.values()} == {"torch.float32", "torch.int64"}
    assert all(torch.equal(state[name], weights[name].to(state[name].dtype)) for name in weights)


def test_checkpoint_of_another_network_is_refused(tmp_path: Path) -> None:
    weights = scalars()
    del weights["cnn.bias"]
    weights["fc.1.weight"] = torch.zeros(2, 512)
    weights["fc.9.weight"] = torch.zeros(1)
    torch.save(weights, tmp_path / "rmvpe.pt")
    with pytest.raises(
        CheckpointError,
        match=r"1 weights missing \['cnn.bias'\], 1 unexpected \['fc.9.weight'\], 1 of another "
        r"shape \['fc.1.weight \(2, 512\) instead of \(360, 512\)'\]",
    ):
        rmvpe_from(tmp_path)


class Malicious:
    """Runs a function when it is unpickled."""

    def __init__(self, touched: Path) -> None:
        self.touched = touched

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.touched,)


def test_what_a_pickle_would_run_is_not_run(tmp_path: Path) -> None:
    trap = {"model": {"cnn.bias": torch.zeros(3)}, "extra": Malicious(tmp_path / "touched")}
    pickle.loads(pickle.dumps(trap["extra"]))  # the trap works
    (tmp_path / "touched").unlink()
    torch.save(trap, tmp_path / "rmvpe.pt")
    with pytest.raises(CheckpointError, match="without executing"):
        rmvpe_from(tmp_path)
    assert not (tmp_path / "touched").exists()


def test_missing_checkpoint_says_what_to_set_and_to_download() -> None:
    with pytest.raises(ParamsError, match=r"set `checkpoint` to .*rmvpe\.pt.*model\.pt"):
        F0(method="rmvpe")
    with pytest.raises(CheckpointError, match=r"download rmvpe\.pt.*HERONRY_CHECKPOINTS"):
        rmvpe_from("nobody/nothing")
