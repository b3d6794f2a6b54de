"""Common ground of prepared corpora: what is tested, and leaks from one to another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from features.corpus.entry import CorpusEntry, corpus_entry
from features.corpus.prepare import prepare
from features.errors import ManifestError
from pipeline.transfer.ground import Ground
from tests.features.corpora.test_union import JOYFUL, write_member


@pytest.fixture
def entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Entries of two corpora, of which a recording of one's training is tested in the other."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HERONRY_STORE", str(tmp_path / "store"))
    write_member("a", ("happy", "sad"), monkeypatch)
    write_member("b", ("sad", "joyful", "calm"), monkeypatch)
    # Of a class that the union leaves out: the model of b has heard it nevertheless.
    Path("b/0_calm.wav").write_bytes(Path("a/4_happy.wav").read_bytes())
    own = {"kind": "manifest", "protocol": "official"}
    return {"a": own, "b": own, "both": {"kind": "union", "of": ["a", "b"], "labels": JOYFUL}}


def union(entries: dict[str, Any], **changes: Any) -> CorpusEntry:
    return corpus_entry("both", entries["both"] | changes, entries)


def test_leaks_from_one_corpus_to_another_are_refused_or_told(entries: dict[str, Any]) -> None:
    for name in ("a", "b"):
        prepare(corpus_entry(name, entries[name]), Path("data", name))
    prepare(union(entries), Path("data/both"))
    with pytest.raises(ManifestError, match=r"b to a: recording: 1 of .* b/0_calm.wav = a/4_happy"):
        Ground.read(union(entries))
    (line,) = Ground.read(union(entries, allow_leak=["recording"])).leaks
    assert line.startswith("b to a: recording: 1 of")
    with pytest.raises(ManifestError, match="b to a: speaker: 1 of"):
        Ground.read(union(entries, allow_leak=["recording"], same_speakers=[["a/s4", "b/s1"]]))


def test_tested_are_the_corpus_s_own_test_splits_that_the_union_keeps(
    entries: dict[str, Any],
) -> None:
    for name in ("a", "b"):
        prepare(corpus_entry(name, entries[name]), Path("data", name))
    prepare(union(entries), Path("data/both"))
    found = Ground.read(union(entries, allow_leak=["recording"]))
    assert found.classes == ("happy", "sad")
    b = found.corpora["b"]
    assert [label.id for label in b.labels] == ["4_sad", "4_joyful", "4_calm"]
    assert {id: label.label for id, label in b.truth.items()} == {
        "4_sad": "sad",
        "4_joyful": "happy",
    }
    assert b.map == {"calm": None, "joyful": "happy", "sad": "sad"}
