"""A tuned encoder read back as a backbone is the encoder that was trained."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from features.audio import torchaudio_cpu  # noqa: F401  transformers imports torchaudio
from features.backbone.base import Backbone
from features.backbone.entry import BackboneEntry, backbone_entry
from features.corpus.manifest import Manifest
from features.errors import CheckpointError
from features.extraction.trained_on import TRAINED_ON, find_seen, read_trained_on, write_trained_on
from features.files.reading import file_sha256
from features.stream import Stream
from features.weights.identity import CONTENT
from features.weights.tensors import WEIGHTS
from pipeline.e2e.export import export, exportable
from pipeline.params.training import TrainParams
from pipeline.training.loop import begin, train_epoch
from pipeline.training.predict import device_of
from tests.conftest import ManifestMaker
from tests.contracts.checkpoints import ced
from tests.support.models.small_live import FAMILIES, entry_of, live_of, slot_of, tuned_model

SECONDS = [0.3, 0.9, 0.5]


@torch.inference_mode()
def stream_of(backbone: Backbone, manifest: Manifest) -> Stream:
    return backbone(backbone.prepare(list(manifest)))


def trained(entry: BackboneEntry, manifest: Manifest, **settings: Any) -> Backbone:
    """A backbone after a few steps in which it was tuned, merged, in eval mode."""
    slot = slot_of(entry)
    live = live_of(manifest, {slot: entry.build()})
    model = tuned_model(live, slots={slot: settings})
    params = TrainParams(lr=1e-2)
    training = begin(model, live, live.labels, params, seed=0)
    for _ in range(4):
        train_epoch(training, live, live.labels, params)
    model.eval().merge()
    assert device_of(model).type == "cpu"
    return live.backbones[slot]


def exported_entry(entry: BackboneEntry, folder: Path) -> BackboneEntry:
    """The entry that reads an exported folder: the same settings, other weights."""
    elsewhere = {"checkpoint": str(folder), "revision": CONTENT + file_sha256(folder / WEIGHTS)}
    options = {key: value for key, value in entry.options.items() if key != "package"}
    return dataclasses.replace(entry, options=options | elsewhere)


@pytest.mark.slow
@pytest.mark.parametrize("family", sorted(FAMILIES))
@pytest.mark.parametrize("tune", ["full", "lora"])
def test_read_back_it_gives_the_same_stream(
    family: str, tune: str, tmp_path: Path, make_manifest: ManifestMaker
) -> None:
    manifest, entry = make_manifest(SECONDS), entry_of(family, tmp_path)
    backbone = trained(entry, manifest, tune=tune)
    live = stream_of(backbone, manifest)
    export(tmp_path / "out", entry, backbone, "tones", list(manifest))
    again = stream_of(exported_entry(entry, tmp_path / "out").build(), manifest)
    assert torch.equal(live.mask, again.mask)
    assert torch.allclose(live.values, again.values, atol=1e-6)
    before = stream_of(entry.build(), manifest)
    assert float((before.values - live.values).abs().max()) > 1e-3


@pytest.mark.slow
@pytest.mark.parametrize("layer", [1, [0, 2]])
@pytest.mark.parametrize("family", ["bert", "hubert_layer", "whisper", "albert"])
def test_the_layer_is_the_same_setting(
    family: str, layer: Any, tmp_path: Path, make_manifest: ManifestMaker
) -> None:
    """The folder holds all layers: those above what was tuned are the public ones."""
    manifest, entry = make_manifest(SECONDS), entry_of(family, tmp_path, layer=layer)
    backbone = trained(entry, manifest)
    export(tmp_path / "out", entry, backbone, "tones", list(manifest))
    again = exported_entry(entry, tmp_path / "out").build()
    difference = stream_of(backbone, manifest).values - stream_of(again, manifest).values
    assert float(difference.abs().max()) < 1e-6
    whole = dataclasses.replace(entry, options={**entry.options, "layer": -1})
    exported_entry(whole, tmp_path / "out").build()


def test_pooling_does_not_change_the_folder(tmp_path: Path, make_manifest: ManifestMaker) -> None:
    manifest, entry = make_manifest(SECONDS), entry_of("bert", tmp_path, pooling="first")
    backbone = trained(entry, manifest)
    export(tmp_path / "out", entry, backbone, "tones", list(manifest))
    again = exported_entry(entry, tmp_path / "out").build()
    assert torch.allclose(
        stream_of(backbone, manifest).values, stream_of(again, manifest).values, atol=1e-6
    )


def test_it_says_what_it_was_trained_on(tmp_path: Path, make_manifest: ManifestMaker) -> None:
    """Also what the checkpoint that it began with says."""
    manifest, entry = make_manifest(SECONDS), entry_of("roberta", tmp_path)
    backbone = entry.build()
    export(tmp_path / "first", entry, backbone, "tones", list(manifest)[:1])
    second = exported_entry(entry, tmp_path / "first")
    export(tmp_path / "second", second, second.build(), "others", list(manifest)[1:2])
    rows = read_trained_on(exported_entry(entry, tmp_path / "second"))
    assert rows is not None
    assert [(row.corpus, row.id) for row in rows] == [("tones", "u0"), ("others", "u1")]
    assert rows[0].audio_sha256 == manifest[0].sha256
    assert list(find_seen(manifest, rows)) == ["u0", "u1"]  # u1 by its audio
    line = (tmp_path / "first" / TRAINED_ON).read_text().splitlines()[0]
    assert set(json.loads(line)) == {"corpus", "id", "audio_sha256", "text_sha256"}


def test_the_same_training_gives_the_same_files(
    tmp_path: Path, make_manifest: ManifestMaker
) -> None:
    manifest, found = make_manifest(SECONDS), []
    for name in ("a", "b"):
        entry = entry_of("bert", tmp_path / name)
        export(tmp_path / name / "out", entry, trained(entry, manifest), "tones", list(manifest))
        files = sorted((tmp_path / name / "out").iterdir())
        found.append({path.name: path.read_bytes() for path in files})
    assert found[0] == found[1]
    assert {"config.json", "model.safetensors", "tokenizer.json", TRAINED_ON} <= set(found[0])
    assert str(tmp_path).encode() not in b"".join(found[0].values())


def test_the_revision_is_the_content(tmp_path: Path, make_manifest: ManifestMaker) -> None:
    manifest, entry = make_manifest(SECONDS), entry_of("bert", tmp_path)
    export(tmp_path / "out", entry, entry.build(), "tones", list(manifest))
    read = exported_entry(entry, tmp_path / "out")
    assert str(read.options["revision"]).startswith("sha256:")
    export(tmp_path / "out", entry, trained(entry, manifest), "tones", list(manifest))
    with pytest.raises(
        CheckpointError, match=r"found sha256:.*put the weights back.*extracted again"
    ):
        read.build()
    exported_entry(entry, tmp_path / "out").build()
    nowhere = {**read.options, "checkpoint": "nobody/nothing"}
    with pytest.raises(CheckpointError, match="cannot load checkpoint 'nobody/nothing'"):
        dataclasses.replace(read, options=nowhere).build()


def test_networks_of_our_own_are_their_weights(
    tmp_path: Path, make_manifest: ManifestMaker
) -> None:
    entry = backbone_entry("ced", {"kind": "ced", **ced.VARIANTS["small"](tmp_path / "ced")})
    manifest, backbone = make_manifest(SECONDS), entry.build()
    with torch.no_grad():
        for parameter in backbone.network.parameters():  # type: ignore[attr-defined]
            parameter.mul_(1.1)
    assert exportable(backbone)
    export(tmp_path / "out", entry, backbone, "tones", list(manifest))
    again = exported_entry(entry, tmp_path / "out").build()
    assert torch.equal(stream_of(backbone, manifest).values, stream_of(again, manifest).values)


def test_signal_processing_has_nothing_to_export() -> None:
    assert not exportable(backbone_entry("tone", {}).build())


def test_inherited_training_utterances_are_listed_once(
    tmp_path: Path, make_manifest: ManifestMaker
) -> None:
    manifest, entry = make_manifest(SECONDS), entry_of("bert", tmp_path)
    write_trained_on(Path(str(entry.options["checkpoint"])), "tones", list(manifest))
    export(tmp_path / "out", entry, entry.build(), "tones", list(manifest))
    assert len((tmp_path / "out" / TRAINED_ON).read_text().splitlines()) == len(SECONDS)
