"""`heronry cache list`: sizes, the models that need each cache, damaged folders."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner, Result

from features.audio.resampling import IDENTITY
from features.cache.shard import read_shard
from features.corpus.manifest import Manifest
from features.files.reasons import REJECTED, write_reasons
from features.process.terminal import size
from pipeline.command_line.app import app
from pipeline.params.file import Params, read_params
from pipeline.storage.inventory import take_inventory, users
from tests.conftest import ManifestMaker
from tests.support.models.tone_cache import HERE, PARAMS, flip_frame, make_project

MODELS = {
    "m": {"kind": "concat", "speech": "tone", "nonverbal": "tone"},
    "other": {"kind": "concat", "prosody": "tone", "text": "none"},
}


@pytest.fixture
def manifest(
    make_manifest: ManifestMaker,
    tmp_path: Path,
    private_store: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Manifest:
    monkeypatch.chdir(tmp_path)
    made = make_project(make_manifest, private_store)
    set_params()
    return made


def set_params(**backbones: object) -> Params:
    entries = {"tone": {}, "none": {}, **backbones}
    Path("params.yaml").write_text(
        yaml.safe_dump(PARAMS | {"backbones": entries, "models": MODELS}, sort_keys=False)
    )
    return read_params(Path("params.yaml"))


def run(*words: str) -> Result:
    result = CliRunner().invoke(app, ["cache", *words])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result


def listed() -> dict[str, object]:
    found: dict[str, object] = json.loads(run("list", "--json").output)
    return found


@pytest.mark.usefixtures("manifest")
def test_a_line_for_each_cache() -> None:
    found = listed()["caches"]
    files = sum(path.stat().st_size for path in HERE.iterdir())
    frames = sum(int(read_shard(path).offsets[-1]) for path in HERE.glob("*.h5"))
    assert found == [
        {
            "corpus": "tones",
            "backbone": "tone",
            "bytes": files,
            "utterances": 7,
            "rejected": 1,
            "frames": frames,
            "dtype": "float16",
            "width": 8,
            "layers": 1,
            "bins": None,
            "hop_seconds": 0.02,
            "pooling": "frames",
            "needed_by": ["m.speech", "m.nonverbal", "other.prosody"],
            "listed": True,
            "problem": "",
        }
    ]
    line = run("list").output.splitlines()[1]
    assert line.split()[:2] == ["tones", "tone"]
    assert line.endswith("m.speech, m.nonverbal, other.prosody")


@pytest.mark.usefixtures("manifest")
def test_the_folder_of_empty_slots() -> None:
    write_reasons(HERE.parent / "none" / REJECTED, {})
    line = run("list").output.splitlines()[1]
    assert line.split()[:4] == ["tones", "none", "10", "B"]
    assert line.endswith("1 slots, without features")


@pytest.mark.usefixtures("manifest")
def test_a_damaged_cache_does_not_hide_the_others() -> None:
    other = HERE.parent / "old"
    other.mkdir()
    (other / "shard-00000.h5").write_bytes(b"nonsense")
    Path("cache/.quarantine/tones").mkdir(parents=True)
    lines = run("list").output.splitlines()
    assert lines[1].startswith("tones   old ")
    assert "not in params.yaml; unreadable, see `heronry cache verify" in lines[1]
    assert lines[2].startswith("tones   tone ")
    assert lines[3].startswith("total   2 caches")
    assert len(lines) == 6


def test_unused_entries_of_the_store_are_listed(manifest: Manifest, private_store: Path) -> None:
    stored = sum(path.stat().st_size for path in private_store.glob("*/*.h5"))
    store = listed()["store"]
    assert isinstance(store, dict)
    assert (store["bytes"], store["unused_bytes"]) == (stored, 0)
    set_params(tone={"version": 2})
    training = private_store / "training" / ("0" * 64)
    training.mkdir(parents=True)
    (training / "seed_0_fold_0.safetensors").write_bytes(b"x" * 1000)
    others = {"predictions": 200, "transcripts": 30, "answers": 7, "known": 5}
    for folder, count in others.items():
        (private_store / folder / ("0" * 64)).mkdir(parents=True)
        (private_store / folder / ("0" * 64) / "lines.jsonl").write_bytes(b"x" * count)
    store = listed()["store"]
    assert isinstance(store, dict)
    assert (store["unused_bytes"], store["training_bytes"]) == (stored, 1000)
    assert (store["prediction_bytes"], store["transcript_bytes"]) == (200, 30)
    assert (store["answer_bytes"], store["network_bytes"]) == (7, 5)
    told = "30 B of transcripts, 7 B of answers, 5 B of what is known of networks"
    assert told in run("list").output
    assert store["unused"] == [["tone", stored]]
    assert f"{size(stored)} of them used by no entry" in run("list").output
    assert manifest


@pytest.mark.usefixtures("manifest")
def test_listing_does_not_count_as_use(private_store: Path) -> None:
    """Or prune would find nothing old after a listing."""
    long_ago = time.time() - 90 * 24 * 3600
    paths = list(private_store.glob("*/*.h5"))
    for path in paths:
        os.utime(path, (long_ago, long_ago))
    take_inventory(read_params(Path("params.yaml")), private_store, Path("nowhere"))
    assert all(path.stat().st_atime < time.time() - 80 * 24 * 3600 for path in paths)


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"checkpoint": "elsewhere/wavlm"}, True),
        ({"checkpoint": "someone/hubert"}, False),
        ({"version": 2}, False),
        ({"pooling": "mean"}, False),
        ({"store_dtype": "float32"}, False),
        ({"layer": 3}, False),
        ({"revision": "0123abc"}, False),
        ({"revision": "main"}, True),
    ],
)
def test_an_entry_matches_the_shards_it_would_write(change: dict[str, object], same: bool) -> None:
    entry = {"kind": "speech_encoder", "checkpoint": "wavlm", "layer": 4}
    params = Params("m", "cached", "tones", None, {}, {}, {"w": entry | change}, {})
    provenance = {
        "kind": "speech_encoder",
        "options": {"layer": 4},
        "pooling": "frames",
        "compute_dtype": "float32",
        "store_dtype": "float16",
        "version": 1,
        "checkpoint": "wavlm",
        "revision": "c9745ed1d9f207416be6d2e6f8de32d1f16199bf",
        "weights_sha256": "0",
        "resampling": IDENTITY,
    }
    assert (not params.backbone("w").differences(provenance)) is same


def test_every_slot_of_a_model_counts() -> None:
    models = {"m": {"kind": "asr_words", "asr": "words", "args": {"text": "words"}, "seeds": 3}}
    params = Params("m", "cached", "tones", None, {}, {}, {"words": {}}, models)
    assert users(params) == {"words": ("m.asr",)}


@pytest.mark.usefixtures("manifest")
def test_verify_is_the_doctor_without_repair() -> None:
    assert run("verify").output.startswith("ok   cache/tones/tone: 7 rows")
    path = HERE / "shard-00001.h5"
    flip_frame(path)
    before = path.read_bytes()
    result = run("verify")
    assert result.exit_code == 1
    assert "bad  cache/tones/tone/shard-00001.h5" in result.output
    assert path.read_bytes() == before
