"""Revisions identify weights of every kind; entries that leave them open are reported."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from features.backbone.entry import backbone_entry, fingerprint, leaves_weights_open
from features.backbones import _hidden_states
from features.errors import CheckpointError
from features.extraction.extract import extract
from features.files.reading import file_sha256
from features.weights.identity import weights_sha256
from pipeline.commands.check import find_problems
from tests.conftest import ManifestMaker
from tests.contracts.checkpoints import (
    ced,
    emotion2vec,
    speech_encoder,
    text_encoder,
    wav2vec2_bert,
    whisper,
)
from tests.pipeline.commands.test_check import params
from tests.support.known_params import known_params

KINDS = {
    "text_encoder": text_encoder.VARIANTS["bert"],
    "speech_encoder": speech_encoder.VARIANTS["hubert_group"],
    "wav2vec2_bert": wav2vec2_bert.VARIANTS["public"],
    "whisper": whisper.VARIANTS["mel80"],
    "ced": ced.VARIANTS["tiny"],
    "emotion2vec": emotion2vec.VARIANTS["wrapped"],
}


def weights_of(options: dict[str, Any]) -> Path:
    """The one weight file of a checkpoint."""
    path = Path(options["checkpoint"])
    (found,) = [path] if path.is_file() else [*path.glob("*.safetensors"), *path.glob("*.pt")]
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_the_hash_of_the_weights_is_a_revision_of_every_kind(kind: str, tmp_path: Path) -> None:
    options = KINDS[kind](tmp_path / "net")
    revision = f"sha256:{file_sha256(weights_of(options))}"
    left_open, named = (
        backbone_entry("x", {"kind": kind, **options, "revision": given})
        for given in (None, revision)
    )
    provenance = named.provenance(named.build())
    assert provenance["revision"] == revision
    assert fingerprint(left_open.provenance(left_open.build())) == fingerprint(provenance)
    assert left_open.differences(provenance) == named.differences(provenance) == {}
    other = backbone_entry("x", {"kind": kind, **options, "revision": f"sha256:{'0' * 64}"})
    assert set(other.differences(provenance)) == {"revision"}
    with pytest.raises(CheckpointError, match=f"write `revision: {revision}`"):
        other.build()


def test_weights_in_several_files_and_of_torch(tmp_path: Path) -> None:
    options = text_encoder.VARIANTS["bert"](tmp_path / "net")
    folder = Path(options["checkpoint"])
    tensors = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(tensors)
    parts = {"one.bin": names[:5], "two.bin": names[5:]}
    for part, own in parts.items():
        torch.save({name: tensors[name] for name in own}, folder / part)
    index = {"weight_map": {name: part for part, own in parts.items() for name in own}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"metadata": {}, **index}))
    lines = sorted(f"{file_sha256(folder / part)}  {part}\n" for part in parts)
    revision = f"sha256:{hashlib.sha256(''.join(lines).encode()).hexdigest()}"
    entry = backbone_entry("x", {"kind": "text_encoder", **options, "revision": revision})
    assert entry.provenance(entry.build())["revision"] == revision
    torch.save({name: tensors[name] + 1 for name in names[5:]}, folder / "two.bin")
    with pytest.raises(CheckpointError, match="found sha256:"):
        entry.build()
    torch.save(tensors, folder / "pytorch_model.bin")  # preferred to the parts
    revision = f"sha256:{file_sha256(folder / 'pytorch_model.bin')}"
    entry = backbone_entry("x", {"kind": "text_encoder", **options, "revision": revision})
    assert entry.provenance(entry.build())["revision"] == revision


def test_what_config_json_decides_is_part_of_the_key(tmp_path: Path) -> None:
    options = text_encoder.VARIANTS["bert"](tmp_path / "net")
    config = Path(options["checkpoint"]) / "config.json"
    prints = set()
    for change in ({}, {"layer_norm_eps": 0.1}, {"hidden_act": "relu"}, {"num_attention_heads": 4}):
        config.write_text(json.dumps(json.loads(config.read_text()) | change))
        entry = backbone_entry("x", {"kind": "text_encoder", **options})
        prints.add(fingerprint(entry.provenance(entry.build())))
    assert len(prints) == 4


@pytest.mark.parametrize("revision", [None, "main"])
def test_open_weights_are_reported_and_refused_under_dvc(
    revision: str | None,
    tmp_path: Path,
    make_manifest: ManifestMaker,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    options = text_encoder.VARIANTS["bert"](tmp_path / "net")
    hash = f"sha256:{file_sha256(weights_of(options))}"
    entry = backbone_entry("t", {"kind": "text_encoder", **options, "revision": revision})
    manifest = make_manifest([0.3])
    monkeypatch.delenv("DVC_STAGE", raising=False)
    extract(manifest, entry, tmp_path / "out", store=tmp_path / "store")
    message = f"backbones.t.revision: given {revision or 'null'}, which leaves open"
    err = capsys.readouterr().err
    assert message in err
    assert f"write `revision: {hash}`" in err
    monkeypatch.setenv("DVC_STAGE", "extract@c-t")
    with pytest.raises(CheckpointError, match=f"write `revision: {hash}`"):
        extract(manifest, entry, tmp_path / "dvc", store=tmp_path / "other")
    assert not (tmp_path / "dvc").exists()
    assert not list((tmp_path / "other").rglob("*.h5"))
    named = backbone_entry("t", {"kind": "text_encoder", **options, "revision": hash})
    done = extract(manifest, named, tmp_path / "dvc", store=tmp_path / "store")
    assert done.linked == 1  # following the advice extracts nothing again
    assert message not in capsys.readouterr().err


def test_weights_are_hashed_once_an_extraction(
    tmp_path: Path, make_manifest: ManifestMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = backbone_entry("t", {"kind": "text_encoder", **text_encoder.VARIANTS["bert"](tmp_path)})
    hashed: list[Any] = []

    def counting(network: Any) -> str:
        hashed.append(network)
        return weights_sha256(network)

    monkeypatch.setattr(_hidden_states, "weights_sha256", counting)
    extract(make_manifest([0.3]), entry, tmp_path / "out", store=tmp_path / "store")
    assert len(hashed) == 1


def test_check_reports_open_and_changed_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_manifest: ManifestMaker
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    options = text_encoder.VARIANTS["bert"](tmp_path / "net")
    hash = f"sha256:{file_sha256(weights_of(options))}"

    def checked(**given: Any) -> str:
        entry = {"kind": "text_encoder", **options, **given}
        models = {"m": {"kind": "concat", "text": "t"}}
        return "\n".join(find_problems(params(backbones={"t": entry, "none": {}}, models=models)))

    assert f"write `revision: {hash}`" in checked(revision=None)
    entry = backbone_entry("t", {"kind": "text_encoder", **options})
    extract(make_manifest([0.3]), entry, tmp_path / "cache/mine/t", store=tmp_path / "store")
    whole = weights_of(options).read_bytes()
    weights_of(options).write_bytes(whole + b"\0")
    message = checked(revision=None)
    assert f"cache/mine/t was made with other weights than {options['checkpoint']!r} has" in message
    assert f"write `revision: sha256:{hashlib.sha256(whole + bytes(1)).hexdigest()}`" in message
    weights_of(options).unlink()  # the features say what they were made of
    assert f"write `revision: {hash}`" in checked(revision=None)
    assert "backbones.t" not in checked(revision=hash)
    assert "backbones.t" in checked(revision=f"sha256:{'0' * 64}")


def test_shipped_entries_pin_their_weights() -> None:
    known = known_params()
    left_open = [name for name in known.backbones if leaves_weights_open(known.backbone(name))]
    assert left_open == ["voc2vec", "xeus"]
