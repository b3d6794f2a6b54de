"""CED equals the public code, under both public layouts of its weights."""

from __future__ import annotations

import copy
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from numpy.typing import NDArray
from safetensors.torch import save_file
from torch import Tensor, nn

from features.backbone.base import Pooled
from features.backbones.ced import CED, FILES
from features.errors import CheckpointError
from features.networks.ced import DecibelMel, Sizes, build, renamed
from tests.conftest import ManifestMaker
from tests.contracts.checkpoints.ced import (
    hub_layout,
    inputs_of,
    public_small,
    small,
    tiny,
    tiny_weights,
)
from tests.support.models.golden import golden

FRONT_END = DecibelMel()


@pytest.fixture(scope="module")
def vectors() -> dict[str, Any]:
    return golden("ced_small.npz")


@pytest.fixture(scope="module")
def full(tmp_path_factory: pytest.TempPathFactory) -> CED:
    return CED(**small(tmp_path_factory.mktemp("ced_small")))


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tiny(tmp_path_factory.mktemp("ced_tiny"))["checkpoint"])


@pytest.fixture(scope="module")
def backbone(checkpoint: str) -> CED:
    return CED(checkpoint=checkpoint)


def mel_of(pcm: NDArray[np.int16]) -> Tensor:
    return FRONT_END(torch.from_numpy(pcm.astype(np.float32) / np.float32(32768)))


def close(ours: Tensor, theirs: NDArray[np.float32], tolerance: float) -> None:
    assert tuple(ours.shape) == theirs.shape
    assert np.abs(ours.numpy() - theirs).max() <= tolerance


# --- names and sizes ---------------------------------------------------------------------------


def test_names_and_count_are_those_of_the_checkpoint() -> None:
    with torch.device("meta"):
        network = build()
    public = {
        entry["key"].replace("init_bn.1.", "init_bn."): entry["shape"]
        for entry in golden("ced_keys.json")["parameters"]
        if not entry["key"].startswith(("outputlayer.", "front_end."))
    }
    assert {name: list(tensor.shape) for name, tensor in network.state_dict().items()} == public
    assert sum(parameter.numel() for parameter in network.parameters()) == 21_418_880


@pytest.mark.parametrize(
    ("width", "heads", "millions"),
    [(192, 3, 5.4), (256, 4, 9.6), (384, 6, 21.4), (768, 12, 85.3)],
)
def test_sizes_are_read_from_the_shapes(width: int, heads: int, millions: float) -> None:
    with torch.device("meta"):
        network = build(width, 12, heads)
        assert Sizes.of(network.state_dict()) == Sizes(width, 12, heads)
    count = sum(parameter.numel() for parameter in network.parameters())
    assert round(count / 1e6, 1) == millions


def test_both_layouts_give_the_same_network() -> None:
    original = public_small()
    hub = hub_layout(original)
    assert "encoder.init_bn.running_var" in hub
    assert "outputlayer.1.weight" in hub
    one, other = (build(weights=layout).state_dict() for layout in (original, hub))
    assert one.keys() == other.keys() == renamed(original).keys()
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert torch.equal(one["init_bn.weight"], original["init_bn.1.weight"])


@pytest.mark.parametrize("file", FILES)
@pytest.mark.parametrize("wrapped", [False, True])
def test_files_are_found_in_a_folder(
    file: str, wrapped: bool, tmp_path: Path, backbone: CED
) -> None:
    if file.endswith(".safetensors"):
        save_file(tiny_weights(), tmp_path / file)
    else:
        torch.save({"model": tiny_weights()} if wrapped else tiny_weights(), tmp_path / file)
    found = CED(checkpoint=str(tmp_path)).provenance()
    assert found["weights_sha256"] == backbone.provenance()["weights_sha256"]


def test_checkpoints_of_another_network_are_refused() -> None:
    whole = tiny_weights()
    with pytest.raises(CheckpointError, match=r"'x' is not one of CED.*patch_embed"):
        build(weights={"conv.weight": torch.zeros(3)}, source="x")
    with pytest.raises(CheckpointError, match=r"100 wide; expected a multiple of 64"):
        build(weights={"patch_embed.proj.weight": torch.zeros(100, 1, 16, 16)})
    lacking = {name: tensor for name, tensor in whole.items() if name != "blocks.1.mlp.fc1.bias"}
    with pytest.raises(CheckpointError, match=r"1 weights missing \['blocks.1.mlp.fc1.bias'\]"):
        build(weights=lacking)
    with pytest.raises(CheckpointError, match=r"1 unexpected \['cls_token'\]"):
        build(weights=whole | {"cls_token": torch.zeros(1, 1, 192)})
    with pytest.raises(CheckpointError, match=r"time_pos_embed \(1, 192, 1, 10\) instead of"):
        build(weights=whole | {"time_pos_embed": torch.zeros(1, 192, 1, 10)})


# --- the public code's numbers -----------------------------------------------------------------


@pytest.mark.parametrize("clip", ["05s", "3s", "12s"])
def test_decibels_are_those_of_the_reference(clip: str, vectors: dict[str, Any]) -> None:
    mel = mel_of(vectors[f"pcm_{clip}"])
    close(mel, vectors[f"logmel_{clip}"], 5e-3)
    if clip != "05s":  # which holds no silence
        assert float(mel.max() - mel.min()) == pytest.approx(120, abs=1e-4)


def test_states_are_those_of_the_reference(full: CED, vectors: dict[str, Any]) -> None:
    network: Any = copy.deepcopy(full.network)
    mel = mel_of(vectors["pcm_3s"])[None]
    frames, patches = torch.tensor([301]), torch.tensor([18])
    with torch.inference_mode():
        normed = network.normalized(mel, frames)
        embedded = network.patch_embed(normed)
        states = network(mel, frames, patches)
        network.norm = nn.Identity()
        before_the_norm = network(mel, frames, patches)[12]
    close(normed[0], vectors["bn_3s"], 3e-4)
    close(embedded[0], vectors["patch_3s"], 1e-4)
    close(states[1][0].flatten(0, 1), vectors["block00_3s"], 1e-4)
    close(states[6][0].flatten(0, 1), vectors["block05_3s"], 1e-4)
    close(before_the_norm[0].flatten(0, 1), vectors["block11_3s"], 1e-4)
    close(states[12][0].flatten(0, 1), vectors["tokens_3s"], 1e-4)


@pytest.mark.slow
def test_embeddings_are_those_of_the_reference(full: CED, vectors: dict[str, Any]) -> None:
    """Alone and in one padded batch."""
    names = ("3s", "12s", "05s")
    mels = [mel_of(vectors[f"pcm_{name}"]) for name in names]
    with torch.inference_mode():
        together = full.pooled(inputs_of(*mels))
        alone = [full.pooled(inputs_of(mel))[0] for mel in mels]
        frames = full(inputs_of(*mels)).unpad()
    for name, batched, single in zip(names, together, alone, strict=True):
        close(batched, vectors[f"embedding_{name}"], 2e-5)
        close(single, vectors[f"embedding_{name}"], 2e-5)
    # 12 s: the second chunk has 189 frames of the clip, in 12 patches.
    assert [len(f) for f in frames] == [18, 63 + 12, 3]
    close(frames[0].mean(0), vectors["embedding_3s"], 2e-5)
    close(frames[1][:63].mean(0), vectors["chunk_embeddings_12s"][0], 2e-5)


def test_mean_pooling_is_the_public_embedding(
    full: CED, vectors: dict[str, Any], make_manifest: ManifestMaker
) -> None:
    (utterance,) = make_manifest([1.0])
    assert utterance.audio is not None
    soundfile.write(utterance.audio, vectors["pcm_12s"], 16_000, subtype="PCM_16")
    changed = dataclasses.replace(utterance, sha256=None)
    pooled = Pooled(full, "mean")
    with torch.inference_mode():
        stream = pooled(pooled.prepare([changed]))
    assert stream.mask.tolist() == [[True]]
    close(stream.values[0, 0], vectors["embedding_12s"], 2e-5)
