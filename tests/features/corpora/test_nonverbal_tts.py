"""NonverbalTTS on miniature trees with each trap of the real one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import soundfile

from features.corpora import nonverbal_tts
from features.corpora.nonverbal_tts import CLASSES, NonverbalTts, transcript
from features.corpus.adapter import Item
from features.corpus.entry import corpus_entry
from features.corpus.manifest import Manifest, read_labels
from features.corpus.prepare import prepare
from features.errors import ManifestError, ParamsError
from tests.support.corpora.hub_tables import Rows, audio, clip, write_parquet

LAUGH, BREATH, SELECTOR = "\U0001f923", "\U0001f32c", "\ufe0f"


def row(number: int, **cells: Any) -> dict[str, Any]:
    return {
        "index": f"ex01/{number}",
        "audio": audio(clip(200 + number), f"{number}.wav"),
        "Initial text": "well no",
        "Result": f"Well {LAUGH}, no.",
        "Emotion": CLASSES[number % len(CLASSES)],
        "speaker_id": f"id{number:05d}",
        "gender": "f" if number % 2 else "m",
        "data_name": "VoxCeleb",
        "duration": 0.1,
        "dnsmos": 3.1,
    } | cells


def tree(root: Path, *, layout: str = "default/{}/0000.parquet", **splits: Rows) -> Path:
    for split, rows in splits.items():
        write_parquet(root / layout.format(split), rows)
    return root


def miniature(root: Path) -> dict[str, Any]:
    """Smallest release whose tables are all read; returns the options of its entry."""
    tree(root, dev=[row(3)])
    return {}


def only(root: Path, **keywords: Any) -> Item:
    (item,) = NonverbalTts(root, **keywords).items()
    return item


def test_a_row_says_everything(tmp_path: Path) -> None:
    item = only(tree(tmp_path, dev=[row(3)]))
    assert item == Item(
        id="valid/ex01/3",
        label="angry",
        speaker="id00003",
        audio="heronry_audio/valid/valid%2Fex01%2F3.wav",
        text="Well, no.",
        gender="female",
        split="valid",
    )
    assert (tmp_path / str(item.audio)).read_bytes() == clip(203)


@pytest.mark.parametrize(
    "layout",
    [
        "default/{}/0000.parquet",
        "data/{}-00000-of-00001.parquet",
        "data/{}/0000.parquet",
        "{}/0.parquet",
    ],
)
def test_layouts_and_official_splits(tmp_path: Path, layout: str) -> None:
    tree(tmp_path, layout=layout, train=[row(0), row(1)], dev=[row(2)], test=[row(3)])
    counts = Counter(item.split for item in NonverbalTts(tmp_path).items())
    assert counts == {"train": 2, "valid": 1, "test": 1}


def test_an_index_may_be_missing_or_count_within_its_split(tmp_path: Path) -> None:
    rows = [row(0, index=0), row(1, index=1)]
    tree(tmp_path / "numbers", train=rows, test=rows)
    ids = [item.id for item in NonverbalTts(tmp_path / "numbers").items()]
    assert ids == ["test/0", "test/1", "train/0", "train/1"]
    bare = [{key: cell for key, cell in row(n).items() if key != "index"} for n in range(2)]
    tree(tmp_path / "bare", layout="data/{}-0.parquet", train=bare)
    tree(tmp_path / "bare", layout="data/{}-1.parquet", train=bare)
    ids = [item.id for item in NonverbalTts(tmp_path / "bare").items()]
    assert ids == ["train/00000", "train/00001", "train/00002", "train/00003"]


@pytest.mark.parametrize("emotion", [None, "None", "null", "", " "], ids=repr)
def test_a_clip_without_emotion_is_kept_and_rejected(tmp_path: Path, emotion: str | None) -> None:
    tree(tmp_path, train=[row(0, Emotion=emotion), row(1)])
    first, second = NonverbalTts(tmp_path).items()
    assert (first.label, first.fault, first.excluded) == (None, None, "it has no emotion")
    assert first.audio is not None
    assert first.text == "Well, no."
    assert (second.label, second.fault, second.excluded) == ("happy", None, None)


@pytest.mark.parametrize(
    ("cells", "reason"),
    [
        ({"Emotion": "bored"}, "label 'bored' is not among the classes of NonverbalTTS"),
        ({"speaker_id": None}, "it has no speaker"),
        ({"Result": "a\0b"}, "Result holds NUL (U+0000); expected whole characters: 'a\\x00b'"),
        ({"audio": audio(None)}, "its cell holds no audio"),
        ({"audio": None}, "its cell holds no audio"),
    ],
)
def test_a_bad_row_is_rejected_alone(tmp_path: Path, cells: dict[str, Any], reason: str) -> None:
    tree(tmp_path, train=[row(0), row(1, **cells), row(2)])
    found = list(NonverbalTts(tmp_path).items())
    assert [item.fault for item in found] == [None, reason, None]
    assert not any(item.excluded for item in found)


def test_a_preview_writes_nothing(tmp_path: Path) -> None:
    corpus = NonverbalTts(tree(tmp_path, train=[row(0), row(1, Emotion=None)], test=[row(2)]))
    seen = list(corpus.preview())
    assert not (tmp_path / "heronry_audio").exists()
    assert [(i.id, i.label, i.speaker) for i in seen] == [
        (i.id, i.label, i.speaker) for i in corpus.items()
    ]


def test_eight_classes_as_in_the_prompt_of_heron(tmp_path: Path) -> None:
    assert set(CLASSES) == {
        "sad", "neutral", "disgusted", "surprised", "angry", "happy", "other", "fearful"
    }  # fmt: skip
    tree(tmp_path, train=[row(n, Emotion=name.title()) for n, name in enumerate(CLASSES)])
    assert [item.label for item in NonverbalTts(tmp_path).items()] == list(CLASSES)


def test_published_counts_add_up() -> None:
    published = NonverbalTts.published
    assert set(published.by["label"]) == set(CLASSES)
    assert sum(published.by["label"].values()) == published.utterances == 6251 - 534


@pytest.mark.parametrize(
    ("text", "tags", "removed"),
    [
        (f"Oh {LAUGH}{SELECTOR}, no", "Oh [laugh] , no", "Oh, no"),
        (f"so{BREATH}{SELECTOR}it is", "so [breath] it is", "so it is"),
        (f"{LAUGH}{LAUGH} ha", "[laugh] [laugh] ha", "ha"),
        (f" {BREATH} ", "[breath]", ""),
        ("caf\u00e9 \u2014 \u201cno\u201d \u2026 5 \u20ac", None, None),
        ("a \U0001f9a9 b", "a [event] b", "a b"),
        ("hm \U0001f444\U0001f3fd", "hm [throat-clear]", "hm"),
    ],
)
def test_events_in_the_transcript(text: str, tags: str | None, removed: str | None) -> None:
    if tags is None:  # no event: all three agree
        tags = removed = text
    assert transcript(text, "tags") == tags
    assert transcript(text, "removed") == removed
    shown = transcript(text, "emoji")
    assert SELECTOR not in shown
    assert transcript(shown, "tags") == tags


def test_the_events_are_ten() -> None:
    assert set(nonverbal_tts.EVENTS.values()) == {
        "breath", "laugh", "cough", "sigh", "sneeze", "groan", "snore", "grunt", "throat-clear",
        "sniff",
    }  # fmt: skip
    for sign, name in nonverbal_tts.EVENTS.items():
        assert transcript(sign + SELECTOR, "tags") == f"[{name}]"
        assert transcript(sign + SELECTOR, "removed") == ""


def test_what_the_text_shows_is_a_choice_and_reported(tmp_path: Path) -> None:
    tree(tmp_path, train=[row(0, Result=f"Well {LAUGH}{SELECTOR}, no.")])
    assert only(tmp_path).text == "Well, no."
    assert only(tmp_path, events="tags").text == "Well [laugh] , no."
    assert only(tmp_path, events="emoji").text == f"Well {LAUGH}, no."
    assert "no speech recogniser" not in NonverbalTts(tmp_path).disclaimer
    assert "no speech recogniser" in NonverbalTts(tmp_path, events="tags").disclaimer
    with pytest.raises(ParamsError, match=r"events: given 'tag'; expected one of 'emoji', 'tags'"):
        corpus_entry("nonverbal_tts", {"events": "tag"})


@pytest.mark.parametrize("result", [None, "NaN", ""], ids=repr)
def test_a_clip_without_a_transcript_has_no_text(tmp_path: Path, result: str | None) -> None:
    item = only(tree(tmp_path, train=[row(0, Result=result)]))
    assert (item.text, item.fault, item.excluded) == (None, None, None)


def test_a_clip_without_words_has_an_empty_text(tmp_path: Path) -> None:
    """`empty_text: drop` is the rule from before there was the option."""
    tree(tmp_path, train=[row(0, Result=f"{LAUGH} {BREATH}")])
    assert only(tmp_path).text == ""
    assert only(tmp_path, empty_text="drop").text is None
    assert only(tmp_path, empty_text="drop", events="tags").text == "[laugh] [breath]"


def prepared_tree(root: Path) -> Path:
    """Four speakers a split, 16 and 48 kHz, two clips without emotion, ids that climb."""
    splits: dict[str, list[dict[str, Any]]] = {}
    for first, split in zip((0, 10, 20), ("train", "dev", "test"), strict=True):
        rows = [row(first + n) for n in range(4)]
        rows[0]["audio"] = audio(clip(500 + first, rate_hz=48_000, kind="FLAC"))
        rows[1]["index"] = f"../../{split}"
        splits[split] = rows
    splits["train"] += [row(4, Emotion=None), row(5, Emotion="None", audio=audio(clip(777)))]
    return tree(root, train=splits["train"], dev=splits["dev"], test=splits["test"])


def test_prepare_from_end_to_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, out = prepared_tree(tmp_path / "root"), tmp_path / "out"
    monkeypatch.setenv("HERONRY_NONVERBAL_TTS_ROOT", str(root))
    entry = corpus_entry("nonverbal_tts", {"protocol": "official"})
    prepared = prepare(entry, out)
    assert prepared.rejected == dict.fromkeys(("train/ex01/4", "train/ex01/5"), "it has no emotion")
    assert prepared.card["rejected"] == 2
    utterances = Manifest.read(out / "utterances").located(root).utterances
    assert len(utterances) == 14
    rates = Counter(soundfile.info(str(utterance.audio)).samplerate for utterance in utterances)
    assert rates == {16_000: 11, 48_000: 3}
    splits = Counter(label.splits for label in read_labels(out / "labels"))
    assert splits == {("train",): 4, ("valid",): 4, ("test",): 4}
    assert {path.name for path in tmp_path.iterdir()} == {"root", "out"}
    assert {path.name for path in root.iterdir()} == {"default", "heronry_audio"}


def test_a_speaker_in_two_splits_is_for_the_gate_to_refuse(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [row(n, speaker_id=f"ex0{n}") for n in range(4)]
    different = [row(n + 4, speaker_id=f"ex0{n}") for n in range(4)]
    root = tree(tmp_path / "root", train=rows, dev=[row(8), row(9)], test=different)
    monkeypatch.setenv("HERONRY_NONVERBAL_TTS_ROOT", str(root))
    with pytest.raises(ManifestError, match=r"speaker: 4 of 6 .*\n.*allow_leak: \[speaker\]"):
        prepare(corpus_entry("nonverbal_tts", {}), tmp_path / "out")
    apart = corpus_entry("nonverbal_tts", {"protocol": "speaker_split"})
    assert prepare(apart, tmp_path / "out").card["leaks"] == []


def test_a_root_that_is_another_corpus(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"holds no default/train/\*\.parquet but \[\]; .*hf d"):
        list(NonverbalTts(tmp_path).items())
    tree(tmp_path, train=[{"audio": "a.wav", "text": "x"}])
    with pytest.raises(ManifestError, match=r"is not NonverbalTTS: default/train/0000\.parquet"):
        list(NonverbalTts(tmp_path).items())


def test_a_broken_file_is_named(tmp_path: Path) -> None:
    tree(tmp_path, train=[row(0)], test=[row(1)])
    (tmp_path / "default/test/0000.parquet").write_bytes(b"PAR1")
    with pytest.raises(ManifestError, match=r"default/test/0000\.parquet cannot be read as Parq"):
        list(NonverbalTts(tmp_path).items())
