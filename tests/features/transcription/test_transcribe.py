"""A corpus is transcribed once, whatever interrupts it and however it is edited."""

from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import features.transcription.recogniser
from features.corpus.manifest import Manifest
from features.corpus.utterance import Utterance
from features.errors import CheckpointError, ManifestError
from features.files.reading import file_sha256
from features.files.reasons import REJECTED, read_reasons
from features.transcription.recogniser import Recogniser
from features.transcription.settings import Transcription
from features.transcription.transcribe import Transcribed, transcribe
from features.transcription.transcripts import read_transcripts
from tests.conftest import ManifestMaker
from tests.support.models.small_whisper import write_whisper
from tests.support.paths import ROOT

SECONDS = [0.3, 0.6, 0.4, 0.9, 0.5, 0.2]
PART = 1.0  # seconds of a part: [0.3 0.6 0.4], [0.9 0.5], [0.2]


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Transcription:
    folder = tmp_path_factory.mktemp("whisper")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        named = write_whisper(folder)
    weights = file_sha256(folder / "model.safetensors")
    return Transcription(**{**named, "revision": f"sha256:{weights}"})


@pytest.fixture(autouse=True)
def short_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features.transcription.recogniser, "PART_SECONDS", PART)


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids of the utterances that go through the network."""
    ids: list[str] = []
    words = Recogniser.words

    def noted(self: Recogniser, utterances: Any) -> Iterator[tuple[str, str]]:
        given = list(utterances)
        ids.extend(u.id for u in given)
        return words(self, given)

    monkeypatch.setattr(Recogniser, "words", noted)
    return ids


def bytes_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_corpus_is_transcribed_once(
    settings: Transcription, make_manifest: ManifestMaker, tmp_path: Path, counted: list[str]
) -> None:
    manifest, out, store = make_manifest(SECONDS), tmp_path / "out", tmp_path / "store"

    def run(manifest: Manifest) -> Transcribed:
        return transcribe(manifest, settings, out, store=store)

    done = run(manifest)
    before = bytes_of(out)
    assert counted == [u.id for u in manifest]
    assert done.words == read_transcripts(out) == dict(Recogniser(settings).words(manifest))
    assert (done.computed, done.rejected) == (6, {})
    del counted[:]
    # Again; with other texts, names and order; with half of the rows: nothing is computed.
    run(manifest)
    assert bytes_of(out) == before
    renamed = tuple(dataclasses.replace(u, id=f"x{u.id}", text="other") for u in manifest)
    found = run(Manifest("other", renamed[::-1]))
    assert found.words == {f"x{id}": words for id, words in reversed(done.words.items())}
    run(Manifest("half", renamed[::2]))
    assert counted == []
    # One recording more is computed alone, and once for two utterances.
    more = make_manifest([0.7], folder="more", start=9)[0]
    rows = (*manifest, more, dataclasses.replace(more, id="same"))
    found = run(Manifest("more", rows))
    assert counted in (["u9"], ["same"])
    assert found.words["same"] == found.words["u9"]


def test_what_cannot_be_transcribed_is_listed_and_the_rest_goes_on(
    settings: Transcription, make_manifest: ManifestMaker, tmp_path: Path
) -> None:
    out, store = tmp_path / "out", tmp_path / "store"
    bad = tmp_path / "bad.wav"
    bad.write_bytes(b"no sound" * 9)
    broken = Utterance("bad", audio=str(bad), sha256=file_sha256(bad), seconds=0.5)
    rows = (*make_manifest([0.3]), broken, Utterance("mute", text="said"))
    done = transcribe(Manifest("c", rows), settings, out, store=store)
    assert list(done.words) == ["u0"]
    assert read_reasons(out / REJECTED) == done.rejected
    assert list(done.rejected) == ["bad", "mute"]
    with pytest.raises(ManifestError, match=r"none of the 1 utterances can be .* the first one"):
        transcribe(Manifest("c", (broken,)), settings, out, store=store)
    assert not out.exists()


def test_weights_that_params_leaves_open_are_refused_under_dvc(
    settings: Transcription,
    make_manifest: ManifestMaker,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    manifest, out, store = make_manifest([0.3]), tmp_path / "out", tmp_path / "store"
    left_open = dataclasses.replace(settings, revision=None)
    transcribe(manifest, left_open, out, store=store)
    assert f"write `revision: {settings.revision}`" in capsys.readouterr().err
    monkeypatch.setenv("DVC_STAGE", "transcribe")
    with pytest.raises(CheckpointError, match=r"transcribe\.revision: given null"):
        transcribe(manifest, left_open, out, store=store)


def test_a_damaged_part_is_computed_again(
    settings: Transcription, make_manifest: ManifestMaker, tmp_path: Path
) -> None:
    manifest, out, store = make_manifest(SECONDS), tmp_path / "out", tmp_path / "store"
    expected = transcribe(manifest, settings, out, store=store).words
    damaged = sorted(store.rglob("*.jsonl"))[1]
    damaged.write_text("{")
    assert transcribe(manifest, settings, out, store=store).words == expected


@pytest.mark.slow
def test_several_devices_give_the_same_words(
    settings: Transcription, make_manifest: ManifestMaker, tmp_path: Path
) -> None:
    manifest = make_manifest(SECONDS)
    for count in (1, 2):
        out, store = tmp_path / f"out{count}", tmp_path / f"store{count}"
        transcribe(manifest, settings, out, store=store, devices=("cpu",) * count)
    assert bytes_of(tmp_path / "out1") == bytes_of(tmp_path / "out2")


KILLED = """
import os, signal, sys
from pathlib import Path
import features.transcription.recogniser as recogniser
from features.corpus.manifest import Manifest
from features.transcription import transcribe as module
from features.transcription.settings import Transcription
folder, checkpoint, revision = sys.argv[1:]
recogniser.PART_SECONDS = 1.0
whole, finished = module.write_rows, []
def write(path, rows):
    if finished:
        path.with_name(f".{path.name}-torn").write_text("{")
        os.kill(os.getpid(), signal.SIGKILL)
    whole(path, rows)
    finished.append(path)
module.write_rows = write
settings = Transcription(checkpoint=checkpoint, revision=revision, package=None)
manifest = Manifest.read(Path(folder, "manifest"))
module.transcribe(
    manifest.located(Path(folder, "audio")), settings, Path(folder, "out"), store=Path(folder, "s")
)
"""


@pytest.mark.slow
def test_a_killed_transcription_goes_on_to_the_same_bytes(
    settings: Transcription, make_manifest: ManifestMaker, tmp_path: Path, counted: list[str]
) -> None:
    manifest = make_manifest(SECONDS)
    names = tuple(dataclasses.replace(u, audio=Path(u.audio or "").name) for u in manifest)
    Manifest("c", names).write(tmp_path / "manifest")
    words = (sys.executable, "-c", KILLED, str(tmp_path), settings.checkpoint, settings.revision)
    done = subprocess.run(
        [str(word) for word in words],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    transcribe(manifest, settings, tmp_path / "out", store=tmp_path / "s")
    assert counted == ["u3", "u4", "u5"]  # the second and third part
    transcribe(manifest, settings, tmp_path / "whole", store=tmp_path / "another")
    assert bytes_of(tmp_path / "out") == bytes_of(tmp_path / "whole")
