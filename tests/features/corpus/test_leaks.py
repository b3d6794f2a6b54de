"""Leaks are found and refused; equal audio is one recording, whatever it is called."""

from __future__ import annotations

import json
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from features.corpus.adapter import Item
from features.corpus.entry import corpus_entry
from features.corpus.leaks import Leak, find_leaks, find_seen_leak, gate, leak_lines
from features.corpus.manifest import SPLITS as ALL_SPLITS
from features.corpus.manifest import USED, Label
from features.corpus.prepare import Prepared, prepare
from features.errors import ManifestError

ITEMS = [
    Item("1", "sad", "anna", audio="a.wav"),
    Item("2", "sad", "bert", audio="copies/a.wav"),
    Item("3", "happy", "cleo", audio="c.wav"),
]
SPLITS = [("train",), ("test",), ("valid",)]


def test_equal_content_under_two_names_is_one_recording() -> None:
    contents = {"a.wav": "f00", "copies/a.wav": "f00", "c.wav": "ba5"}
    assert [str(leak) for leak in find_leaks(ITEMS, SPLITS, contents)] == [
        "recording: 1 of 2 occur in more than one split (fold 0), "
        "such as a.wav = copies/a.wav (train, test)"
    ]
    assert find_leaks(ITEMS, SPLITS, contents | {"copies/a.wav": "f01"}) == []
    assert find_leaks(ITEMS, SPLITS) == []


def test_equal_content_within_a_split_or_unused_leaks_nothing() -> None:
    contents = dict.fromkeys(("a.wav", "copies/a.wav"), "f00")
    assert find_leaks(ITEMS, [("train",), ("train",), ("test",)], contents) == []
    assert find_leaks(ITEMS, [("train",), ("unused",), ("test",)], contents) == []


def test_spans_of_one_file_are_one_recording_apart_or_not() -> None:
    for start in (0.5, 1.0):
        items = [
            Item("1", "sad", "anna", audio="a.wav", start=0.0, stop=1.0),
            Item("2", "sad", "bert", audio="a.wav", start=start, stop=2.0),
        ]
        (leak,) = find_leaks(items, [("train",), ("test",)], {"a.wav": "f00"})
        assert (leak.kind, leak.examples) == ("recording", ("a.wav (train, test)",))


def test_many_names_are_not_all_quoted() -> None:
    items = [Item(str(n), "sad", f"s{n}", audio=f"{n}.wav") for n in range(9)]
    splits = [("train",)] * 8 + [("test",)]
    (leak,) = find_leaks(items, splits, {f"{n}.wav": "f00" for n in range(9)})
    assert leak.examples == ("0.wav = 1.wav = 2.wav = 6 more (train, test)",)


LEAKY = [
    Item("1", "sad", "anna", audio="a.wav", dialogue="d1", sentence="t"),
    Item("2", "sad", "anna", audio="b.wav", dialogue="d1", sentence="t"),
    Item("3", "sad", "bert", audio="c.wav", dialogue="d2", sentence="t"),
    Item("4", "happy", "cleo", audio="c.wav"),
]


def test_leaks_are_named_with_where_they_are() -> None:
    splits = [("train", "test"), ("train", "valid"), ("test", "train"), ("valid", "train")]
    assert [str(leak) for leak in find_leaks(LEAKY, splits)] == [
        "speaker: 1 of 3 occur in more than one split (fold 1), such as anna (test, valid)",
        "dialogue: 1 of 2 occur in more than one split (fold 1), such as d1 (test, valid)",
        "recording: 1 of 3 occur in more than one split (fold 0), such as c.wav (test, valid)",
        "sentence: 1 of 1 occur in more than one split (fold 0, 1), such as t (test, valid, train)",
    ]


@st.composite
def corpora(
    draw: st.DrawFn,
) -> tuple[list[Item], list[tuple[str, ...]], dict[str, str]]:
    """A small corpus whose utterances share speakers, dialogues and files, often across splits."""
    size, folds = draw(st.integers(0, 12)), draw(st.integers(1, 4))
    rows = st.tuples(*[st.sampled_from(ALL_SPLITS)] * folds)
    # Few different rows, as under a protocol.
    distinct = draw(st.lists(rows, min_size=1, max_size=4))
    splits = draw(st.lists(st.sampled_from(distinct), min_size=size, max_size=size))
    few = st.sampled_from("abcd")
    items = [
        Item(
            str(number),
            "sad",
            draw(few),
            audio=draw(few),
            dialogue=draw(st.none() | few),
            sentence=draw(st.none() | few),
        )
        for number in range(size)
    ]
    return items, splits, draw(st.dictionaries(few, st.sampled_from("xy")))


def by_fold(
    kind: str, names: list[str | None], splits: list[tuple[str, ...]], same: dict[str, str]
) -> Leak | None:
    """The definition: names and splits of each value in each fold, in order of appearance."""
    seen: dict[tuple[str, int], tuple[dict[str, None], dict[str, None]]] = {}
    for name, row in zip(names, splits, strict=True):
        for fold, split in enumerate(row if name is not None else ()):
            if name is not None and split in USED:
                held = seen.setdefault((same.get(name, name), fold), ({}, {}))
                held[0][name] = held[1][split] = None
    crossing = {key: held for key, held in seen.items() if len(held[1]) > 1}
    texts = {}
    for (value, _), (held_names, held_splits) in crossing.items():
        listed = list(held_names)
        listed[3:] = [f"{len(listed) - 3} more"] if len(listed) > 3 else []
        texts[value] = f"{' = '.join(listed)} ({', '.join(held_splits)})"
    total = len({value for value, _ in seen})
    folds = tuple(sorted({fold for _, fold in crossing}))
    return Leak(kind, len(texts), total, folds, tuple(texts.values())[:5]) if texts else None


@pytest.mark.parametrize("bytes_at_once", [1, 1 << 24])
@given(corpus=corpora())
def test_leaks_are_those_of_each_value_in_each_fold(
    bytes_at_once: int, corpus: tuple[list[Item], list[tuple[str, ...]], dict[str, str]]
) -> None:
    items, splits, contents = corpus
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("features.corpus.leaks._PART_BYTES", bytes_at_once)
        found = find_leaks(items, splits, contents)
    expected = [
        by_fold(
            kind,
            [getattr(item, name) for item in items],
            splits,
            contents if kind == "recording" else {},
        )
        for kind, name in (
            ("speaker", "speaker"),
            ("dialogue", "dialogue"),
            ("recording", "audio"),
            ("sentence", "sentence"),
        )
    ]
    assert found == [leak for leak in expected if leak is not None]


def test_memory_of_leaks_does_not_grow_with_the_folds() -> None:
    """Each value of its own, in one row of splits a speaker, as if one speaker were left out."""
    peaks = []
    for speakers in (20, 400):
        splits = [
            tuple("test" if fold == s else "train" for fold in range(speakers))
            for s in range(speakers)
        ]
        items = [Item(str(n), "sad", f"s{n % speakers}", audio=str(n)) for n in range(4000)]
        rows = [splits[n % speakers] for n in range(len(items))]
        tracemalloc.start()
        assert find_leaks(items, rows) == []
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < 1.5 * peaks[0], peaks


def test_unused_utterances_leak_nothing() -> None:
    splits = [("train",), ("unused",), ("unused",), ("test",)]
    assert find_leaks(LEAKY, splits) == []


def test_the_gate() -> None:
    splits = [("train",), ("valid",), ("train",), ("test",)]
    leaks = find_leaks(LEAKY, splits)
    with pytest.raises(ManifestError) as caught:
        gate(leaks, ["recording"], corpus="mine")
    message = str(caught.value)
    assert "corpus 'mine': the splits leak" in message
    assert "anna (train, valid)" in message
    assert "c.wav" not in message
    assert "corpora.mine.allow_leak: [dialogue, recording, speaker]" in message
    gate(leaks, ["dialogue", "recording", "speaker"], corpus="mine")


def test_a_sentence_on_both_sides_is_no_reason_to_refuse() -> None:
    splits = [("train",), ("train",), ("test",), ("test",)]
    leaks = find_leaks(LEAKY, splits)
    assert [leak.kind for leak in leaks] == ["sentence"]
    gate(leaks, [], corpus="mine")


def test_labels_leak_as_their_items_do() -> None:
    splits = [("train", "test"), ("train", "valid"), ("test", "train"), ("valid", "train")]
    labels = [
        Label(
            item.id,
            str(item.label),
            item.speaker,
            item.dialogue,
            sentence=item.sentence,
            audio=item.audio,
            splits=row,
        )
        for item, row in zip(LEAKY, splits, strict=True)
    ]
    assert find_leaks(labels, splits) == find_leaks(LEAKY, splits)


def test_the_verdict_is_data_and_comes_back_whole() -> None:
    splits = [("train",), ("valid",), ("train",), ("test",)]
    for leak in [*find_leaks(LEAKY, splits), Leak("checkpoint", 1, 2, (0,), ("1 (why)",), "slot")]:
        fields = json.loads(json.dumps(leak.to_dict()))
        assert fields == leak.to_dict()
        assert Leak.from_dict(fields) == leak
    for broken in ({}, {"kind": "speaker"}, leak.to_dict() | {"age": 3}):
        with pytest.raises(ManifestError, match="is malformed"):
            Leak.from_dict(broken)


def test_only_a_scripted_corpus_explains_its_sentences() -> None:
    leaks = find_leaks(LEAKY, [("train",), ("train",), ("test",), ("test",)])
    (plain,), (told,) = leak_lines(leaks), leak_lines(leaks, scripted=True)
    assert told.startswith(plain)
    assert "a model of the text alone must sit at chance" in told.removeprefix(plain)


SPLIT = [("train", "test"), ("valid", "train"), ("test", "unused"), ("unused", "unused")]
LABELS = [Label(str(n), "sad", f"s{n}", splits=row) for n, row in enumerate(SPLIT)]


def test_a_checkpoint_leaks_what_is_scored_in_any_fold() -> None:
    seen = {str(n): "it was trained on" for n in range(4)}
    leak = find_seen_leak(LABELS, seen, "slot text, backbone tuned")
    assert leak is not None
    assert (leak.count, leak.total, leak.folds) == (3, 3, (0, 1))
    assert str(leak) == (
        "checkpoint: 3 of 3 validation and test utterances were in the training data of slot text, "
        "backbone tuned (fold 0, 1), such as 0 (it was trained on); 1 (it was trained on); "
        "2 (it was trained on)"
    )
    with pytest.raises(ManifestError) as caught:
        gate([leak], [], corpus="mine")
    assert "slot text, backbone tuned" in str(caught.value)
    assert "allow_leak: [checkpoint]" in str(caught.value)
    assert "protocol" not in str(caught.value)
    gate([leak], ["checkpoint"], corpus="mine")


def test_a_checkpoint_may_have_seen_what_trains_or_is_unused() -> None:
    assert find_seen_leak(LABELS, {"3": "", "elsewhere": ""}, "") is None
    assert find_seen_leak([LABELS[0]], {}, "") is None
    first_fold = [Label("0", "sad", "s", splits=("train",))]
    assert find_seen_leak(first_fold, {"0": "it was trained on"}, "") is None


def prepared(folder: Path, **settings: object) -> Prepared:
    entry = corpus_entry("mine", {"kind": "manifest", **settings})
    return prepare(entry, folder / "data")


def test_prepare_refuses_a_copy_in_another_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HERONRY_MINE_ROOT", str(tmp_path / "audio"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "memory"))
    (tmp_path / "audio").mkdir()
    rows = ["audio,label,speaker,split"]
    for number, split in enumerate(("train", "train", "valid", "test")):
        path = tmp_path / "audio" / f"{number}.wav"
        soundfile.write(path, np.full(4_000, number / 10), 16_000)
        rows.append(f"{path.name},{('sad', 'happy')[number % 2]},s{number},{split}")
    (tmp_path / "audio/manifest.csv").write_text("\n".join(rows) + "\n")
    assert prepared(tmp_path).card["leaks"] == []
    shutil.copy(tmp_path / "audio/1.wav", tmp_path / "audio/3.wav")
    with pytest.raises(ManifestError, match=r"recording: 1 of 3 .* 1\.wav = 3\.wav \(train, test"):
        prepared(tmp_path)
    card = prepared(tmp_path, allow_leak=["recording"]).card
    assert len(card["leaks"]) == 1
