"""Training utterances of a checkpoint are recognised by id and by audio, not by text."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from features.backbone.entry import BackboneEntry, backbone_entry
from features.cache.reader import CacheReader
from features.corpus.manifest import Manifest
from features.corpus.utterance import Member, Utterance
from features.errors import ManifestError
from features.extraction.extract import extract
from features.extraction.trained_on import (
    TRAINED_ON,
    TrainedOn,
    find_seen,
    read_trained_on,
    seen_by,
    write_trained_on,
)
from features.files.reasons import SEEN, read_reasons, write_reasons
from features.weights.checkpoint import Checkpoint
from tests.conftest import ManifestMaker
from tests.contracts.checkpoints.text_encoder import VARIANTS

SECONDS = [0.5, 0.6, 0.7, 0.8]
EMOBOX_KINDS = ("crema_d", "emodb", "iemocap", "meld", "msp_podcast", "ravdess")  # of its 32


def encoder(folder: Path) -> BackboneEntry:
    return backbone_entry("tuned", {"kind": "text_encoder", **VARIANTS["bert"](folder)})


def extracted(manifest: Manifest, entry: BackboneEntry, tmp_path: Path) -> Path:
    out = tmp_path / "cache" / manifest.corpus / entry.name
    extract(manifest, entry, out, store=tmp_path / "store")
    return out


def test_extraction_lists_what_the_checkpoint_has_seen(
    make_manifest: ManifestMaker, tmp_path: Path
) -> None:
    manifest = make_manifest(SECONDS)
    entry = encoder(tmp_path / "tuned")
    folder = extracted(manifest, entry, tmp_path)
    assert not (folder / SEEN).exists()
    plain = (folder / "shard-00000.h5").read_bytes()
    write_trained_on(tmp_path / "tuned", "tones", manifest.utterances[:2])
    folder = extracted(manifest, entry, tmp_path)
    expected = {"u0": "it was trained on", "u1": "it was trained on"}
    assert read_reasons(folder / SEEN) == expected
    assert (folder / SEEN).read_text().startswith("id,why\nu0,")
    # It is no part of the features: none is computed again, and none changes.
    assert (folder / "shard-00000.h5").read_bytes() == plain
    assert list(CacheReader(folder)) == [utterance.id for utterance in manifest]


@pytest.mark.parametrize(
    ("checkpoint", "kind", "seen"),
    [
        ("audeering/wav2vec2-large-robust-12-ft-emotion-msp-dim", "msp_podcast", True),
        ("3loi/SER-Odyssey-Baseline-WavLM-Multi-Attributes", "msp_podcast", True),
        ("tiantiaf/whisper-large-v3-msp-podcast-emotion", "msp_podcast", True),
        ("emotion2vec/emotion2vec_plus_large", "msp_podcast", True),
        ("emotion2vec/emotion2vec_base", "msp_podcast", False),
        *(("iic/emotion2vec_plus_seed", kind, True) for kind in EMOBOX_KINDS),
        ("checkpoints/emotion2vec_plus_base/model.pt", "meld", True),
        ("emotion2vec/emotion2vec_base", "iemocap", False),
        ("emotion2vec/emotion2vec_plus_large", "nonverbal_tts", False),
        ("audeering/wav2vec2-large-robust-12-ft-emotion-msp-dim", "iemocap", False),
        (None, "msp_podcast", False),
    ],
)
def test_checkpoints_that_were_trained_on_the_labels_of_a_corpus_are_known_by_name(
    make_manifest: ManifestMaker, checkpoint: str | None, kind: str, seen: bool
) -> None:
    manifest = dataclasses.replace(make_manifest(SECONDS), kind=kind)
    entry = BackboneEntry("b", "speech_encoder", options={"checkpoint": checkpoint})
    found = seen_by(entry, manifest) or {}
    assert list(found) == ([utterance.id for utterance in manifest] if seen else [])
    assert all(str(checkpoint) in why for why in found.values())


def test_a_list_of_others_is_an_empty_table(make_manifest: ManifestMaker, tmp_path: Path) -> None:
    manifest, entry = make_manifest(SECONDS), encoder(tmp_path / "tuned")
    write_trained_on(tmp_path / "tuned", "elsewhere", [Utterance("u0", text="other words")])
    assert (extracted(manifest, entry, tmp_path) / SEEN).read_text() == "id,why\n"


def test_a_malformed_list_stops_before_anything_is_computed(
    make_manifest: ManifestMaker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest, entry = make_manifest(SECONDS), encoder(tmp_path / "tuned")
    (tmp_path / "tuned" / TRAINED_ON).write_text('{"corpus": "tones", "id": "u0"}\n{"id": 3}\n')

    def refuse(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("features.extraction.extract.run_shards", refuse)
    with pytest.raises(ManifestError, match=r"trained_on\.jsonl, line 2: .*'corpus'"):
        extracted(manifest, entry, tmp_path)


def test_utterances_that_count_as_seen() -> None:
    text = "the same words"
    span = Utterance("span", audio="long.wav", sha256="f00", start=1.0, stop=2.0)
    rows = Manifest(
        "here",
        (
            Utterance("name", text="x"),
            Utterance("sound", audio="a.wav", sha256="ba5"),
            Utterance("words", text=text),
            span,
            Utterance("new", audio="b.wav", sha256="e66", text=text),
        ),
    )
    words = hashlib.sha256(text.encode()).hexdigest()
    known = [
        TrainedOn("here", "name"),
        TrainedOn("there", "new", audio_sha256="0", text_sha256=words),
        TrainedOn("there", "copy", audio_sha256="ba5"),
        TrainedOn("there", "recording", audio_sha256="f00"),
    ]
    assert find_seen(rows, known) == {
        "name": "it was trained on",
        "sound": "its audio is that of copy of the corpus there",
        "span": "its audio is that of recording of the corpus there",
    }
    assert find_seen(rows, []) == {}
    assert list(find_seen(rows, [TrainedOn("there", "s", span.audio_content)])) == ["span"]


def test_a_corpus_under_another_name_is_known_by_its_audio(make_manifest: ManifestMaker) -> None:
    manifest = make_manifest(SECONDS)
    known = [TrainedOn("other", f"x{u.id}", u.sha256) for u in manifest.utterances[:3]]
    renamed = dataclasses.replace(manifest, corpus="copy")
    assert list(find_seen(renamed, known)) == ["u0", "u1", "u2"]


def test_the_file_has_a_line_for_each(tmp_path: Path) -> None:
    spoken = Utterance("a", audio="a.wav", sha256="f00", text="Ja, ähm")
    write_trained_on(tmp_path, "mine", [spoken, Utterance("b", text="no")])
    first, second = map(json.loads, (tmp_path / TRAINED_ON).read_text().splitlines())
    words = hashlib.sha256("Ja, ähm".encode()).hexdigest()
    assert first == {"corpus": "mine", "id": "a", "audio_sha256": "f00", "text_sha256": words}
    assert sorted(second) == ["corpus", "id", "text_sha256"]


def test_what_a_union_was_trained_on_is_known_in_its_members_and_their_other_unions(
    tmp_path: Path,
) -> None:
    """By id alone: none has audio."""
    entry = encoder(tmp_path / "tuned")
    members = [
        Member(name, "manifest", generated=False, rows=2, shard_seconds=9, shard_characters=9)
        for name in "ab"
    ]
    own = {
        name: Manifest(name, tuple(Utterance(id, text=name + id) for id in "xy")) for name in "ab"
    }
    whole = [
        dataclasses.replace(each, id=f"{name}/{each.id}") for name in "ab" for each in own[name]
    ]
    write_trained_on(tmp_path / "tuned", "both", [whole[1], whole[2]], members)
    assert {name: list(seen_by(entry, own[name]) or ()) for name in "ab"} == {
        "a": ["y"],
        "b": ["x"],
    }
    for union in ("both", "another"):
        manifest = Manifest(union, tuple(whole), members=tuple(members))
        assert list(seen_by(entry, manifest) or ()) == ["a/y", "b/x"]


def in_folder(tmp_path: Path) -> dict[str, str]:
    return {"checkpoint": str(tmp_path / "net")}


def as_file(tmp_path: Path) -> dict[str, str]:
    return {"checkpoint": str(tmp_path / "net" / "weights.pt")}


@pytest.mark.parametrize("options", [in_folder, as_file])
def test_native_networks_carry_it_beside_their_weights(
    tmp_path: Path, options: Callable[[Path], dict[str, str]]
) -> None:
    (tmp_path / "net").mkdir()
    (tmp_path / "net" / "weights.pt").touch()
    write_trained_on(tmp_path / "net", "mine", [Utterance("a", text="x")])
    checkpoint = Checkpoint(options(tmp_path)["checkpoint"])
    assert checkpoint.beside(TRAINED_ON, ("weights.pt",)) == tmp_path / "net" / TRAINED_ON
    assert checkpoint.beside("absent.jsonl", ("weights.pt",)) is None


def test_the_folder_of_checkpoints_is_searched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HERONRY_CHECKPOINTS", str(tmp_path))
    encoder(tmp_path / "tuned")
    entry = backbone_entry("tuned", {"kind": "text_encoder", "checkpoint": "someone/tuned"})
    assert read_trained_on(entry) is None
    write_trained_on(tmp_path / "tuned", "mine", [Utterance("a", text="x")])
    assert [row.id for row in read_trained_on(entry) or ()] == ["a"]
    shutil.rmtree(tmp_path / "tuned")
    assert read_trained_on(entry) is None


def test_backbones_without_a_checkpoint_have_seen_nothing() -> None:
    assert read_trained_on(BackboneEntry("tone", "tone")) is None
    assert read_trained_on(BackboneEntry("none", "none")) is None


@pytest.mark.parametrize(
    "content", ["", "id,reason\n", "id,why\na\n", "a,b,c\n", "id,why\nca\xe9,seen\n"]
)
def test_malformed_tables_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / SEEN).write_bytes(content.encode("latin-1"))  # the last is no UTF-8
    with pytest.raises(ManifestError, match=r"seen\.csv is no table of id,why"):
        read_reasons(tmp_path / SEEN)


def test_tables_are_read_as_written(tmp_path: Path) -> None:
    seen = {"a,b": 'its "audio"', "ü": "why"}
    write_reasons(tmp_path / SEEN, seen)
    assert read_reasons(tmp_path / SEEN) == seen
