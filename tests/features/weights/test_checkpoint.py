"""Weights are found by path or name, loaded without executing code, identified by content."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from features.backbone.entry import backbone_entry, fingerprint
from features.errors import CheckpointError
from features.weights.checkpoint import Checkpoint
from features.weights.tensors import load_strictly, read_tensors
from tests.contracts.checkpoints import ced, text_encoder

WEIGHTS = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.zeros(2)}


class Evil:
    """Runs a command when it is unpickled."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.system, (f"touch {self.trace}",)


def same(found: dict[str, torch.Tensor]) -> bool:
    return set(found) == set(WEIGHTS) and all(torch.equal(found[k], WEIGHTS[k]) for k in found)


@pytest.mark.parametrize("wrapper", [None, "model", "state_dict"])
def test_torch_files_wrapped_or_not(tmp_path: Path, wrapper: str | None) -> None:
    path = tmp_path / "weights.pt"
    torch.save({wrapper: WEIGHTS, "epoch": 3} if wrapper else WEIGHTS, path)
    assert same(read_tensors(path))


def test_safetensors(tmp_path: Path) -> None:
    save_file(WEIGHTS, tmp_path / "model.safetensors")
    assert same(read_tensors(tmp_path / "model.safetensors"))


def test_nothing_in_a_file_is_executed(tmp_path: Path) -> None:
    path, trace = tmp_path / "evil.pt", tmp_path / "trace"
    torch.save({"weight": Evil(trace)}, path)
    with pytest.raises(CheckpointError, match=r"evil.pt cannot be read without executing"):
        read_tensors(path)
    assert not trace.exists()


@pytest.mark.parametrize("content", [b"", b"garbage", b"\x80\x02garbage", b"PK\x03\x04"])
@pytest.mark.parametrize("name", ["x.pt", "x.safetensors"])
def test_garbage_is_a_checkpoint_error(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(CheckpointError, match=name):
        read_tensors(tmp_path / name)


def test_a_file_without_tensors(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="holds no named tensors"):
        read_tensors(tmp_path / "x.pt")


def test_strict_loading_names_what_does_not_fit() -> None:
    network = nn.Linear(3, 2)
    load_strictly(network, WEIGHTS, "x")
    assert torch.equal(network.weight, WEIGHTS["weight"])
    with pytest.raises(CheckpointError, match=r"1 weights missing \['bias'\], 1 unexpected"):
        load_strictly(network, {"weight": WEIGHTS["weight"], "bais": WEIGHTS["bias"]}, "x")
    with pytest.raises(CheckpointError, match=r"bias \(3,\) instead of \(2,\)"):
        load_strictly(network, {**WEIGHTS, "bias": torch.zeros(3)}, "x")


def test_a_file_is_found_by_path_in_a_folder_and_below_the_named_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "all" / "rmvpe"
    folder.mkdir(parents=True)
    torch.save(WEIGHTS, folder / "rmvpe.pt")
    names = ("model.safetensors", "rmvpe.pt")
    for name in (str(folder / "rmvpe.pt"), str(folder), "all/rmvpe", "all/rmvpe/rmvpe.pt"):
        checkpoint = Checkpoint(name)
        checkpoint.look_for(names)
        assert same(checkpoint.tensors(names))
        assert str(tmp_path) not in str(checkpoint.provenance(names))
    with pytest.raises(CheckpointError, match=r"download model.safetensors or rmvpe.pt"):
        Checkpoint("somebody/rmvpe").look_for(names)
    monkeypatch.setenv("HERONRY_CHECKPOINTS", str(tmp_path / "all"))
    assert same(Checkpoint("somebody/rmvpe").tensors(names))
    assert Checkpoint("somebody/rmvpe").provenance(names)["checkpoint"] == "somebody/rmvpe"


def test_missing_weights_are_reported_before_and_when_loading() -> None:
    for files in ((), ("rmvpe.pt",)):
        with pytest.raises(CheckpointError, match=r"'no/where'.*\n.*HERONRY_CHECKPOINTS"):
            Checkpoint("no/where").look_for(files)
    with pytest.raises(CheckpointError, match="put its files into a folder 'where'"):
        Checkpoint("no/where").tensors(["rmvpe.pt"])


def test_equal_weights_have_one_identity_wherever_they_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a folder by path and by name; the revision, and it alone, makes other features."""
    folder = Path(text_encoder.VARIANTS["bert"](tmp_path / "one")["checkpoint"])
    monkeypatch.setenv("HERONRY_CHECKPOINTS", str(folder.parent))
    prints = []
    for options in (
        {"checkpoint": str(folder)},
        {"checkpoint": folder.name},
        {"checkpoint": folder.name, "revision": "0123456789abcdef"},
        {"checkpoint": folder.name, "layer": 1},
        {"checkpoint": folder.name, "max_tokens": 5},
        {"checkpoint": folder.name, "pooling": "first"},
        {"checkpoint": folder.name, "version": 2},
    ):
        entry = backbone_entry("x", {"kind": "text_encoder", **options})
        provenance = entry.provenance(entry.build())
        assert str(tmp_path) not in str(provenance)
        prints.append(fingerprint(provenance))
    assert prints[0] == prints[1]
    assert len(set(prints)) == len(prints) - 1


def test_native_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    options = ced.VARIANTS["tiny"](tmp_path)
    with pytest.raises(CheckpointError, match="is not one of emotion2vec"):
        backbone_entry("x", {"kind": "emotion2vec", **options}).build()
