"""The RAVDESS adapter on miniature trees with each trap, and on the real recordings if present."""

from __future__ import annotations

from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from features.corpora.ravdess import Ravdess
from features.corpus.adapter import Item
from features.corpus.entry import corpus_entry
from features.corpus.manifest import Manifest, read_labels
from features.corpus.prepare import prepare
from features.errors import ManifestError
from tests.support.corpora.small_corpus import set_root, write_level
from tests.support.corpora.usable_audio import inspect_usable
from tests.support.paths import SHARED

REAL = SHARED / "data" / "ravdess"


def tree(root: Path, *names: str) -> Path:
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return root


def miniature(root: Path) -> dict[str, Any]:
    """Smallest release whose tables are all read; returns the options of its entry."""
    tree(root, "Actor_12/03-01-06-01-02-01-12.wav")
    return {}


def only(root: Path) -> Item:
    (item,) = Ravdess(root).items()
    return item


def test_a_name_says_everything(tmp_path: Path) -> None:
    item = only(tree(tmp_path, "Actor_12/03-01-06-01-02-01-12.wav"))
    assert item == Item(
        id="03-01-06-01-02-01-12",
        label="fearful",
        speaker="actor_12",
        audio="Actor_12/03-01-06-01-02-01-12.wav",
        text="Dogs are sitting by the door",
        gender="female",
        sentence="02",
    )


def test_emotions_are_numbered_in_the_order_of_the_classes(tmp_path: Path) -> None:
    names = [f"Actor_01/03-01-{emotion:02d}-01-01-01-01.wav" for emotion in range(1, 9)]
    corpus = Ravdess(tree(tmp_path, *names))
    assert tuple(item.label for item in corpus.items()) == corpus.classes
    assert corpus.classes[0] == "neutral"
    assert corpus.classes[-1] == "surprised"


def test_odd_actors_are_male_and_even_ones_female(tmp_path: Path) -> None:
    tree(tmp_path, *(f"Actor_{n:02d}/03-01-01-01-01-01-{n:02d}.wav" for n in range(1, 25)))
    genders = {item.speaker: item.gender for item in Ravdess(tmp_path).items()}
    assert [genders[f"actor_{n:02d}"] for n in (1, 2, 23, 24)] == ["male", "female"] * 2
    assert Counter(genders.values()) == {"male": 12, "female": 12}


def test_order_is_that_of_the_paths_and_both_formats_are_taken(tmp_path: Path) -> None:
    tree(
        tmp_path,
        "Actor_10/03-01-01-01-01-01-10.WAV",
        "Actor_02/03-01-02-01-01-01-02.flac",
        "Actor_02/03-01-01-01-01-01-02.wav",
    )
    assert [item.id for item in Ravdess(tmp_path).items()] == [
        "03-01-01-01-01-01-02",
        "03-01-02-01-01-01-02",
        "03-01-01-01-01-01-10",
    ]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("03-02-01-01-01-01-03.wav", "vocal channel 02: a song"),
        ("01-01-01-01-01-01-03.mp4", "modality 01: a video"),
        ("02-01-01-01-01-01-03.wav", "modality 02: a video"),
        ("04-01-01-01-01-01-03.wav", "modality 04 and vocal channel 01; expected 03 and 01"),
        ("03-01-09-01-01-01-03.wav", "emotion 09 and statement 01; expected 01-08 and 01-02"),
        ("03-01-01-01-03-01-03.wav", "emotion 01 and statement 03; expected 01-08 and 01-02"),
        ("03-01-01-01-01-01-04.wav", "actor 04 in the folder Actor_03"),
        ("03-01-01-01-01-03.wav", "the name is not seven two-digit fields"),
        ("03-01-01-01-01-01-03 (1).wav", "the name is not seven two-digit fields"),
        ("take one.flac", "the name is not seven two-digit fields"),
    ],
)
def test_what_is_not_a_speech_clip_is_rejected(tmp_path: Path, name: str, reason: str) -> None:
    item = only(tree(tmp_path, f"Actor_03/{name}"))
    right = reason.endswith(("a song", "a video"))
    assert (item.fault, item.excluded) == ((None, reason) if right else (reason, None))
    assert (item.id, item.label, item.audio, item.text) == (f"Actor_03/{name}", None, None, None)


def test_an_actor_who_does_not_exist(tmp_path: Path) -> None:
    item = only(tree(tmp_path, "Actor_25/03-01-01-01-01-01-25.wav"))
    assert item.fault == "actor 25 in the folder Actor_25"


def test_other_files_are_none_of_the_corpus(tmp_path: Path) -> None:
    tree(
        tmp_path,
        "Actor_01/._03-01-01-01-01-01-01.wav",
        "Actor_01/notes.txt",
        "Actor_1/03-01-01-01-01-01-01.wav",
        "audio_speech_actors_01-24/Actor_01/03-01-01-01-01-01-01.wav",
    )
    assert list(Ravdess(tmp_path).items()) == []


def test_a_root_without_actors(tmp_path: Path) -> None:
    tree(tmp_path, "wav/03a01Fa.wav")
    with pytest.raises(
        ManifestError, match=r"no folder Actor_01 to Actor_24 but \['wav'\].*zenodo"
    ):
        list(Ravdess(tmp_path).items())


def test_the_published_counts_are_those_of_the_design() -> None:
    published = Ravdess.published
    # two statements, twice each, at two intensities; neutral has one
    each = {name: 24 * 2 * 2 * (1 if name == "neutral" else 2) for name in Ravdess.classes}
    assert published.by["label"] == each
    assert published.utterances == sum(each.values()) == 1440
    assert sum(published.by["speaker"].values()) == 1440
    assert set(published.by["speaker"].values()) == {60}
    assert Ravdess.scripted


def test_prepared_no_actor_is_in_two_splits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "ravdess"
    for actor, emotion, statement in product(range(1, 11), range(1, 9), (1, 2)):
        name = f"03-01-{emotion:02d}-01-{statement:02d}-01-{actor:02d}.wav"
        # A few clips are stereo.
        write_level(root / f"Actor_{actor:02d}" / name, rate_hz=48_000, channels=1 + (actor == 1))
    tree(root, "Actor_03/03-02-01-01-01-01-03.wav")
    set_root(monkeypatch, "ravdess", root)
    entry = corpus_entry("ravdess", {"protocol": "speaker_folds", "folds": 5})
    done = prepare(entry, tmp_path / "data")
    assert (done.utterances, done.card["folds"]) == (160, 5)
    assert done.rejected == {
        "Actor_03/03-02-01-01-01-01-03.wav": "vocal channel 02: a song",
    }
    assert done.card["speakers"] == [{"train": 6, "valid": 2, "test": 2}] * 5
    assert done.card["counts"][0]["test"] == dict.fromkeys(Ravdess.classes, 4)
    labels = read_labels(tmp_path / "data" / "labels")
    for fold in range(5):
        tested = {row.speaker: row.gender for row in labels if row.splits[fold] == "test"}
        assert sorted(filter(None, tested.values())) == ["female", "male"]
    seconds = {row.seconds for row in Manifest.read(tmp_path / "data" / "utterances")}
    assert seconds == {1600 / 48_000}


@pytest.mark.real_data
@pytest.mark.skipif(not REAL.is_dir(), reason=f"needs the RAVDESS clips in {REAL}")
def test_real_recordings() -> None:
    items = list(Ravdess(REAL).items())
    assert [item.id for item in items if item.fault or item.excluded] == []
    assert Counter(item.speaker for item in items) == {
        f"actor_{n:02d}": 60 for n in (1, 2, 3, 4, 9, 10, 11, 12, 17, 18, 19, 20)
    }
    counts = Counter(item.label for item in items)
    assert counts.pop("neutral") == 48
    assert set(counts.values()) == {96}
    assert len(counts) == 7
    assert Counter(item.gender for item in items) == {"male": 360, "female": 360}
    for name in ("label", "speaker"):
        published = Ravdess.published.by[name]
        found = Counter(getattr(item, name) for item in items)
        # half of the actors
        assert {key: found[key] for key in found} == {
            key: published[str(key)] // (2 if name == "label" else 1) for key in found
        }
    seconds = [inspect_usable(REAL / str(item.audio)).seconds for item in items]
    assert sum(seconds) / 60 == pytest.approx(44, abs=1)
