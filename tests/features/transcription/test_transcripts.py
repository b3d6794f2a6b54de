"""Whose words a backbone reads, and the files that they pass through."""

from __future__ import annotations

import pickle  # noqa: TID251  worker processes get manifests that way
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.backbone.entry import BackboneEntry, backbone_entry
from features.corpus.manifest import Manifest
from features.corpus.utterance import Utterance
from features.errors import ManifestError
from features.files.reasons import REJECTED
from features.transcription.transcribe import skip
from features.transcription.transcripts import (
    ROWS,
    WORDS,
    Transcript,
    as_read,
    read_transcripts,
    read_words,
    write_transcripts,
    write_words,
)

OPTIONS = {"kind": "asr_text", "checkpoint": "somewhere"}
ALWAYS = backbone_entry("x", OPTIONS)
MISSING = backbone_entry("x", {**OPTIONS, "where": "missing"})
SAID = st.none() | st.sampled_from(["", "one", "two"])


def written(folder: Path, words: dict[str, str]) -> Path:
    folder.mkdir()
    write_transcripts(folder, (Transcript(*pair) for pair in words.items()), {}, {"kind": "test"})
    return folder


@pytest.mark.parametrize("lazy", [False, True], ids=["tuple", "file"])
@given(text=SAID, asr=SAID, heard=SAID)
def test_own_words_come_before_transcripts_and_references_where_they_are_asked_for(
    tmp_path_factory: pytest.TempPathFactory,
    lazy: bool,
    text: str | None,
    asr: str | None,
    heard: str | None,
) -> None:
    folder = tmp_path_factory.mktemp("words")
    row = Utterance("u", audio="a.wav", sha256="ab", text=text, asr=asr, seconds=1.0)
    manifest = Manifest("c", (row,))
    if lazy:
        manifest.write(folder / "manifest")
        manifest = Manifest.read(folder / "manifest").located(Path("/root"))
    transcripts = written(folder / "transcripts", {} if heard is None else {"u": heard})
    own = heard if asr is None else asr
    for entry, words in ((ALWAYS, own), (MISSING, own if text is None else text)):
        (found,) = pickle.loads(pickle.dumps(as_read(manifest, entry, transcripts)))
        assert (found.asr, found.text) == (words, text)
    # An entry of `backbones` has no transcripts.
    (found,) = as_read(manifest, ALWAYS, None)
    assert found.asr == asr
    assert as_read(manifest, BackboneEntry("x", "tone"), transcripts) is manifest


def test_where_the_words_are_from_is_no_setting_of_their_features() -> None:
    """Features are known by the words themselves."""
    assert ALWAYS.differences({"options": MISSING.keywords(), **MISSING.settings()}).keys() == {
        "store_dtype"
    }


def test_files_of_transcripts(tmp_path: Path) -> None:
    words = {"a": "one two", "b": "", "c": "\u2028 \u00fc"}
    folder = written(tmp_path / "transcripts", words)
    assert read_transcripts(folder) == words
    manifest = Manifest("c", (Utterance("a", text="x", asr="one"), Utterance("b", text="y")))
    write_words(tmp_path, manifest)
    assert read_words(tmp_path / WORDS) == {"a": "one"}
    assert read_words(tmp_path / "nothing.jsonl") == {}
    skip(folder)
    assert [path.name for path in folder.iterdir()] == [REJECTED]
    assert read_transcripts(folder) == {}
    with pytest.raises(ManifestError, match=r"dvc\.yaml:transcribe@c`"):
        read_transcripts(tmp_path / "c" / "transcripts")


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ('{"id": "a", "words": 1}\n', "line 1: utterance 'a': words is 1; expected text"),
        ('{"id": "a", "words": "x"}\n{"id": "a", "words": "y"}\n', "1 ids occur more than once"),
        ('{"id": "a"}\n', "line 1: "),
    ],
)
def test_malformed_transcripts_are_refused(tmp_path: Path, lines: str, message: str) -> None:
    folder = written(tmp_path / "transcripts", {})
    (folder / ROWS).write_text(lines)
    with pytest.raises(ManifestError, match=message):
        read_transcripts(folder)
