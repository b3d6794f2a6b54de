"""The EmoDB adapter on miniature trees with each trap, and through `prepare`."""

from __future__ import annotations

from collections import Counter
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from features.corpora.emodb import EMOTIONS, GENDERS, SENTENCES, EmoDB
from features.corpus.adapter import Item
from features.corpus.entry import corpus_entry
from features.corpus.manifest import Manifest, read_labels
from features.corpus.prepare import prepare
from features.errors import ManifestError
from tests.support.corpora.small_corpus import set_root, write_level


def tree(root: Path, *names: str) -> Path:
    for name in names:
        write_level(root / "wav" / name)
    return root


def miniature(root: Path) -> dict[str, Any]:
    """Smallest release whose tables are all read; returns the options of its entry."""
    tree(root, "03a01Fa.wav")
    return {}


def only(root: Path) -> Item:
    (item,) = EmoDB(root).items()
    return item


def test_a_name_says_everything(tmp_path: Path) -> None:
    assert only(tree(tmp_path, "03a01Fa.wav")) == Item(
        id="03a01Fa",
        label="happiness",
        speaker="03",
        audio="wav/03a01Fa.wav",
        text="Der Lappen liegt auf dem Eisschrank.",
        gender="male",
        sentence="a01",
    )


def test_letters_are_those_of_the_german_words(tmp_path: Path) -> None:
    # Wut, Langeweile, Ekel, Angst, Freude, Trauer, neutral
    corpus = EmoDB(tree(tmp_path, *(f"08b10{letter}c.wav" for letter in "WLEAFTN")))
    assert {item.id[5]: item.label for item in corpus.items()} == {
        "W": "anger",
        "L": "boredom",
        "E": "disgust",
        "A": "fear",
        "F": "happiness",
        "T": "sadness",
        "N": "neutral",
    }
    assert set(corpus.classes) == set(corpus.label_map.values())


def test_five_men_and_five_women_speak_ten_sentences(tmp_path: Path) -> None:
    speakers = [f"{number:02d}" for number in (3, *range(8, 17))]
    tree(tmp_path, *(f"{s}{t}Na.wav" for s, t in product(speakers, SENTENCES)))
    items = list(EmoDB(tmp_path).items())
    assert [item.fault for item in items] == [None] * 100
    assert {item.speaker: item.gender for item in items} == GENDERS
    assert {s for s, gender in GENDERS.items() if gender == "male"} == {
        "03", "10", "11", "12", "15",
    }  # fmt: skip
    assert Counter(item.sentence for item in items) == dict.fromkeys(SENTENCES, 10)
    assert len({item.text for item in items}) == 10


def test_the_published_counts_add_up() -> None:
    published = EmoDB.published
    assert published.utterances == sum(published.by["label"].values()) == 535
    assert tuple(published.by["label"]) == EmoDB.classes
    assert EmoDB.scripted


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("04a01Fa.wav", "speaker 04; expected one of 03, 08, 09, 10, 11, 12, 13, 14, 15, 16"),
        ("03a03Fa.wav", "sentence a03; expected one of a01, a02, a04"),
        ("03a01Xa.wav", "emotion X; expected one of W, L, E, A, F, T, N"),
        ("03a01F.wav", "the name is not speaker, sentence, emotion and take"),
        ("03a01Fa (1).wav", "the name is not speaker, sentence, emotion and take"),
        ("٠٣a01Fa.wav", "the name is not speaker, sentence, emotion and take"),
    ],
)
def test_what_is_no_clip_of_the_corpus_is_rejected(tmp_path: Path, name: str, reason: str) -> None:
    item = only(tree(tmp_path, name))
    assert str(item.fault).startswith(reason)
    assert (item.id, item.label, item.audio, item.text) == (f"wav/{name}", None, None, None)


def test_other_files_are_none_of_the_corpus(tmp_path: Path) -> None:
    tree(tmp_path, "._03a01Fa.wav", "03a01Fa.lab", "03a02Nc.WAV", "deep/03a01Fa.wav")
    assert [item.id for item in EmoDB(tmp_path).items()] == ["03a02Nc"]


def test_a_root_without_clips(tmp_path: Path) -> None:
    (tmp_path / "Actor_01").mkdir()
    with pytest.raises(ManifestError, match=r"no folder wav but \['Actor_01'\].*bilderbar"):
        list(EmoDB(tmp_path).items())


def test_prepared_one_speaker_is_left_out_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tree(
        tmp_path / "emodb",
        *(f"{s}{t}{e}a.wav" for s, t, e in product(GENDERS, ("a01", "b02"), EMOTIONS)),
        "99a01Fa.wav",
    )
    set_root(monkeypatch, "emodb", root)
    entry = corpus_entry("emodb", {"protocol": "leave_one_speaker_out", "allow_rejected": 1})
    done = prepare(entry, tmp_path / "data")
    assert (done.utterances, done.card["folds"]) == (140, 10)
    assert list(done.rejected) == ["wav/99a01Fa.wav"]
    assert done.card["speakers"] == [{"train": 8, "valid": 1, "test": 1}] * 10
    assert done.card["counts"][0]["test"] == dict.fromkeys(EmoDB.classes, 2)
    assert [leak.partition(":")[0] for leak in done.card["leaks"]] == ["sentence"]
    labels = read_labels(tmp_path / "data" / "labels")
    tested = [{row.speaker for row in labels if row.splits[fold] == "test"} for fold in range(10)]
    assert tested == [{speaker} for speaker in sorted(GENDERS)]
    assert Manifest.read(tmp_path / "data" / "utterances")[0].text == SENTENCES["a01"]
