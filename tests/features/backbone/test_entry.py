"""Equal settings have one key in the work store, however params.yaml writes them."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.backbone.entry import backbone_entry, fingerprint
from features.cache.reader import CacheReader
from features.extraction.extract import extract
from tests.conftest import ManifestMaker
from tests.contracts.checkpoints import speech_encoder, text_encoder, whisper

SPELLED: dict[str, dict[str, list[Any]]] = {
    "logmel": {
        "n_mels": [64],
        "hop": [160],
        "n_fft": [512],
        "f_min": [0, 0.0, -0.0],
        "f_max": [8000, 8e3],
        "pooling": ["frames"],
        "compute_dtype": ["float32"],
        "version": [1],
    },
    "f0": {
        "method": ["harvest"],
        "values": ["bins"],
        "bins": [256],
        "f_min": [50, 50.0],
        "checkpoint": [None],
    },
    "tone": {"dim": [8], "store_dtype": ["float16"]},
}


def recorded(kind: str, options: dict[str, Any]) -> dict[str, Any]:
    """The provenance of an entry, as shards have it."""
    entry = backbone_entry("x", {"kind": kind, **options})
    found: dict[str, Any] = json.loads(json.dumps(entry.provenance(entry.build())))
    return found


@pytest.mark.parametrize("kind", SPELLED)
@given(data=st.data())
def test_defaults_spelled_out_or_not_are_one_key(kind: str, data: st.DataObject) -> None:
    names = data.draw(st.sets(st.sampled_from(sorted(SPELLED[kind]))))
    options = {name: data.draw(st.sampled_from(SPELLED[kind][name])) for name in sorted(names)}
    bare = recorded(kind, {})
    assert recorded(kind, options) == bare
    assert backbone_entry("x", {"kind": kind, **options}).differences(bare) == {}


def test_defaults_stand_in_the_record() -> None:
    held = recorded("logmel", {})["options"]
    assert held == {"f_max": 8000.0, "f_min": 0.0, "hop": 160, "n_fft": 512, "n_mels": 64}


def test_an_option_of_a_later_release_is_recorded_where_it_changes_the_numbers() -> None:
    """At its default, caches of older releases keep their keys."""
    assert sorted(recorded("f0", {})["options"]) == [
        *("bins", "f_max", "f_min", "method", "threshold", "unvoiced"),
    ]
    entry = backbone_entry("x", {"kind": "f0", "values": "hz"})
    assert recorded("f0", {"values": "hz"})["options"]["values"] == "hz"
    assert entry.differences(recorded("f0", {})) == {"values": (None, "hz")}


NETWORKS: dict[str, tuple[Any, list[dict[str, Any]], list[dict[str, Any]]]] = {
    "text_encoder": (
        text_encoder.VARIANTS["bert"],
        [{}, {"layer": 3}, {"layer": [-1]}],
        [{"layer": 2}, {"layer": [3, 2]}, {"layer": "all"}, {"pooling": "mean"}],
    ),
    "speech_encoder": (
        speech_encoder.VARIANTS["hubert_group"],
        [{"layer": "all"}, {"layer": [0, 1, 2, 3]}, {"layer": [-4, -3, -2, -1]}],
        [{}, {"layer": [3, 2, 1, 0]}],
    ),
    "whisper": (
        whisper.VARIANTS["mel80"],
        [{}, {"layer": 3}, {"pad": "30s", "long": "chunk"}],
        [{"pad": "trim"}, {"layer": 1}, {"long": "reject"}],
    ),
}


@pytest.mark.parametrize("kind", NETWORKS)
def test_layers_are_resolved_in_the_key_and_compared_without_weights(
    kind: str, tmp_path: Path
) -> None:
    write, equal, others = NETWORKS[kind]
    folder = write(tmp_path / "net")
    options = [{**folder, **each} for each in (*equal, *others)]
    records = [recorded(kind, each) for each in options]
    prints = [fingerprint(record) for record in records]
    assert len(set(prints[: len(equal)])) == 1
    assert len(set(prints)) == 1 + len(others)
    for (i, each), (j, record) in itertools.product(enumerate(options), enumerate(records)):
        same = i == j or max(i, j) < len(equal)
        entry = backbone_entry("x", {"kind": kind, **each})
        assert (not entry.differences(record)) is same, (each, options[j])


def test_an_option_that_is_left_to_the_weights(tmp_path: Path) -> None:
    folder = text_encoder.VARIANTS["bert"](tmp_path / "net")
    left, whole, short = (
        {**folder, **each}
        for each in ({"max_tokens": None}, {"max_tokens": 512}, {"max_tokens": 9})
    )
    assert recorded("text_encoder", left) == recorded("text_encoder", whole)
    cut = recorded("text_encoder", short)
    entries = [backbone_entry("x", {"kind": "text_encoder", **each}) for each in (left, whole)]
    assert [entry.differences(cut) for entry in entries] == [{}, {"max_tokens": (9, 512)}]


def test_features_are_found_again_under_another_spelling(
    make_manifest: ManifestMaker, tmp_path: Path
) -> None:
    manifest, store = make_manifest([0.3, 0.4]), tmp_path / "store"
    for name, options in (("one", {}), ("two", {"n_mels": 64, "f_max": 8000})):
        entry = backbone_entry("logmel", options)
        done = extract(manifest, entry, tmp_path / name, store=store)
    assert (done.computed, done.linked) == (0, 1)
    files = [(tmp_path / name / "shard-00000.h5").read_bytes() for name in ("one", "two")]
    assert files[0] == files[1]


def test_features_of_earlier_releases_are_read_and_known_for_other_ones(
    make_manifest: ManifestMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their options are those that were spelled out."""
    entry = backbone_entry("logmel", {"hop": 160})
    cls = type(entry)
    old = {**recorded("logmel", {}), "options": {"hop": 160}}
    monkeypatch.setattr(cls, "provenance", lambda *_: old)
    extract(make_manifest([0.3]), entry, tmp_path / "old", store=tmp_path / "store")
    reader = CacheReader(tmp_path / "old", verify=True)
    assert reader["u0"].shape[1] == 64
    assert set(entry.differences(reader.provenance)) == {"f_max", "f_min", "n_fft", "n_mels"}
