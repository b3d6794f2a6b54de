"""Utterances and labels as files: what is written is read back, and nothing malformed is."""

from __future__ import annotations

import json
import math
import tracemalloc
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.corpus.manifest import Label, Manifest, read_labels
from features.corpus.utterance import SHARD_BYTES, Member, Utterance
from features.errors import ManifestError
from features.files.records import read_json, write_rows

SIZES: dict[str, Any] = {"bytes": 3}
TEXTS = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1)
NO_TIMES: tuple[Any, ...] = (math.nan, math.inf, -math.inf, -0.5, "1", True)
IDS = st.text(st.characters(categories=["L", "N", "P", "S"]), min_size=1)


@st.composite
def utterances(draw: st.DrawFn) -> Utterance:
    audio = draw(st.none() | TEXTS)
    start, length = draw(st.floats(0, 1e3)), draw(st.floats(0.01, 1e3))
    spanned = draw(st.booleans())
    return Utterance(
        id=draw(IDS),
        audio=audio,
        sha256=draw(st.none() if audio is None else TEXTS),
        text=draw(TEXTS if audio is None else st.none() | TEXTS),
        start=start if spanned else None,
        stop=start + length if spanned else None,
        seconds=draw(st.none() | st.floats(0, 1e5)),
    )


def rows(*ids: str) -> tuple[Utterance, ...]:
    return tuple(Utterance(id, audio=f"{id}.wav", sha256="0" * 64, **SIZES) for id in ids)


@pytest.mark.slow
@given(st.lists(utterances(), unique_by=lambda utterance: utterance.id))
def test_a_manifest_is_read_as_it_was_written(written: list[Utterance]) -> None:
    manifest = Manifest("c", tuple(written), kind="k", generated=True, shard_seconds=5.5)
    with TemporaryDirectory() as folder:
        manifest.write(Path(folder))
        assert Manifest.read(Path(folder)) == manifest


def test_bytes_of_shards_are_written_where_they_are_not_the_usual_ones(tmp_path: Path) -> None:
    for bound, written in ((SHARD_BYTES, False), (5_000_000, True)):
        whole = Member("a", "k", False, 0, 5.0, 100, bound)
        manifest = Manifest("c", (), shard_bytes=bound, members=(whole,))
        manifest.write(tmp_path)
        assert ((tmp_path / "corpus.json").read_text().count("shard_bytes") == 2) is written
        assert ("shard_bytes" in (tmp_path / "corpus.json").read_text()) is written
        read = Manifest.read(tmp_path)
        assert (read.shard_bytes, read.members) == (bound, (whole,))


@pytest.mark.parametrize("bound", [0, -1])
def test_limits_of_a_member_are_above_0(bound: int) -> None:
    member = Member("a", "k", False, 0, 5.0, 100, bound)
    with pytest.raises(ManifestError, match=f"shard_bytes is {bound}; expected a number above 0"):
        Manifest("c", (), members=(member,))


@given(st.lists(st.tuples(IDS, TEXTS, st.sampled_from(["train", "unused"]))))
def test_labels_are_read_as_they_were_written(values: list[tuple[str, str, str]]) -> None:
    labels = [
        Label(id, text, speaker=text, dialogue=text, turn=number, splits=(split, "test"))
        for number, (id, text, split) in enumerate({row[0]: row for row in values}.values())
    ]
    with TemporaryDirectory() as folder:
        write_rows(Path(folder) / "labels.jsonl", labels)
        assert read_labels(Path(folder)) == labels


def test_texts_and_splits_that_labels_share_are_held_once(tmp_path: Path) -> None:
    """Even thousands of folds cost nothing a label, where a protocol gives many the same splits."""
    splits = ("train",) * 2000 + ("test",)
    rows = [Label(f"u{n}", "sad", "anna", audio="a.wav", splits=splits) for n in range(300)]
    write_rows(tmp_path / "labels.jsonl", rows)
    tracemalloc.start()
    first, *others = read_labels(tmp_path)
    size, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert size < len(rows) * 600 + 8 * len(splits) * 3, size
    for label in others:
        assert label.splits is first.splits
        assert label.speaker is first.speaker
        assert label.audio is first.audio


def test_writing_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("one", "two"):
        Manifest("c", rows("a", "b")).write(tmp_path / name)
    for file in ("corpus.json", "manifest.jsonl"):
        assert (tmp_path / "one" / file).read_bytes() == (tmp_path / "two" / file).read_bytes()


def test_content_is_the_file_and_the_span_for_audio_and_the_words_for_text() -> None:
    one = Utterance("a", audio="a.wav", sha256="1", text="hm", start=0.0, stop=1.0, **SIZES)
    same = Utterance("b", audio="b.wav", sha256="1", text="hm", start=0.0, stop=1.0)
    assert (one.audio_content, one.text_content) == (same.audio_content, same.text_content)
    for other in (
        Utterance("a", audio="a.wav", sha256="2", start=0.0, stop=1.0),
        Utterance("a", audio="a.wav", sha256="1", start=0.0, stop=1.1),
        Utterance("a", audio="a.wav", sha256="1"),
    ):
        assert other.audio_content not in (one.audio_content, None)
        assert other.text_content is None
    assert Utterance("a", text="hm!").text_content != one.text_content
    assert Utterance("a", text="hm").audio_content is None


def test_a_manifest_is_a_sequence() -> None:
    manifest = Manifest("c", rows("a", "b"))
    assert len(manifest) == 2
    assert [utterance.id for utterance in manifest] == ["a", "b"]
    assert manifest[1].id == "b"


def test_located_makes_paths_absolute(tmp_path: Path) -> None:
    manifest = Manifest("c", (*rows("a"), Utterance("t", text="hm")))
    located = manifest.located(tmp_path)
    assert [u.audio for u in located] == [str(tmp_path / "a.wav"), None]
    assert manifest[0].audio == "a.wav"


@pytest.mark.parametrize("audio", ["../a.wav", "/a.wav", "x/../../a.wav"])
def test_a_path_that_leaves_the_root(tmp_path: Path, audio: str) -> None:
    manifest = Manifest("c", (Utterance("a", audio=audio, sha256="0"),))
    with pytest.raises(ManifestError, match="expected a relative one below the corpus root"):
        manifest.located(tmp_path)


@pytest.mark.parametrize("id", ["", " a", "a\n", "a\tb", 5, None])
def test_wrong_ids(id: Any) -> None:
    with pytest.raises(ManifestError, match="expected printable text"):
        Utterance(id, text="hm")
    with pytest.raises(ManifestError, match="expected printable text"):
        Label(id, "happy", "s")


def test_wrong_rows() -> None:
    with pytest.raises(ManifestError, match="neither audio nor text"):
        Utterance("a")
    for start, stop in ((2.0, 1.0), (1.0, 1.0)):
        with pytest.raises(ManifestError, match="expected 0 <= start < stop"):
            Utterance("a", text="hm", start=start, stop=stop)
    for name, value in ((n, v) for n in ("start", "stop", "seconds") for v in NO_TIMES):
        with pytest.raises(ManifestError, match=f"{name} is .*expected a number of seconds"):
            Utterance("a", text="hm", **{name: value})
    with pytest.raises(ManifestError, match="split 'dev'; expected one of"):
        Label("a", "happy", "s", splits=("train", "dev"))


def test_audio_that_nothing_identifies() -> None:
    """Features are known by content: those of rows without a hash would all be the first one's."""
    utterance = Utterance("a", audio="a.wav", seconds=1.0)
    with pytest.raises(ManifestError, match="without sha256"):
        _ = utterance.audio_content
    with pytest.raises(ManifestError, match="without sha256"):
        Manifest("c", (utterance,))


def test_wrong_manifests() -> None:
    with pytest.raises(ManifestError, match=r"corpus 'c': 1 ids occur more than once.*\['a'\]"):
        Manifest("c", rows("a", "b", "a"))
    sizes: list[dict[str, Any]] = [{"shard_seconds": 0}, {"shard_bytes": 0}]
    for size in sizes:
        with pytest.raises(ManifestError, match=f"{next(iter(size))} is 0; expected a number abo"):
            Manifest("c", rows("a"), **size)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "line 2"),
        ("[]", "line 2"),
        ('{"id": "b"}', "line 2: utterance 'b' has neither audio nor text"),
        ('{"text": "hm"}', "line 2.*id"),
        ('{"id": "b", "audio": "b.wav"}', r"line 2: .*'b\.wav' without sha256.*run `prepare`"),
        ('{"id": "b", "audio": "b.wav", "sha256": ""}', "line 2: .*without sha256"),
        ('{"id": "b", "text": "hm", "start": NaN}', "line 2: .*start is nan"),
        ('{"id": "b", "text": "hm", "label": "sad"}', "line 2: unknown field 'label'"),
        ('{"id": "a", "text": "hm"}', "occur more than once"),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: str, message: str) -> None:
    Manifest("c", rows("a")).write(tmp_path)
    path = tmp_path / "manifest.jsonl"
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(ManifestError, match=message):
        Manifest.read(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "format and version .*2.*dvc repro"),
        ({"format": "other"}, "format and version .*other"),
        ({"colour": "red"}, "colour"),
        ({"shard_seconds": -1}, "expected a number above 0"),
    ],
)
def test_a_foreign_head_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    Manifest("c", rows("a")).write(tmp_path)
    head = json.loads((tmp_path / "corpus.json").read_text())
    (tmp_path / "corpus.json").write_text(json.dumps(head | change))
    with pytest.raises(ManifestError, match=message):
        Manifest.read(tmp_path)


def test_json_that_is_missing_or_no_object(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"cannot read .*No such file.*dvc repro"):
        read_json(tmp_path / "card.json")
    for text, message in (("{", "is not JSON"), ("[]", "holds a list; expected a JSON object")):
        (tmp_path / "card.json").write_text(text)
        with pytest.raises(ManifestError, match=message):
            read_json(tmp_path / "card.json")
