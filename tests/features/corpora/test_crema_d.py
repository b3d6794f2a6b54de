"""The CREMA-D adapter on miniature trees with each trap, and through `prepare`."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from features.corpora._tables.text import LFS_BEGIN
from features.corpora.crema_d import INTENDED, SENTENCES, CremaD
from features.corpus.adapter import Item
from features.corpus.entry import corpus_entry, corpus_problems
from features.corpus.manifest import Manifest, read_labels
from features.corpus.prepare import Prepared, prepare
from features.errors import ManifestError
from tests.support.corpora.small_corpus import set_root, write_level

HEAD = ["", "FileName", "VoiceVote", "VoiceLevel", "FaceVote", "FaceLevel", "MultiModalVote"]
POINTER = f"{LFS_BEGIN}.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 60000\n"


def clips(root: Path, *names: str) -> Path:
    for name in names:
        write_level(root / "AudioWAV" / name)
    return root


def demographics(root: Path, sexes: Mapping[int, str]) -> None:
    rows = [f'{actor},40,"{sex}","Caucasian","Not Hispanic"\n' for actor, sex in sexes.items()]
    head = '"ActorID","Age","Sex","Race","Ethnicity"\n'
    (root / "VideoDemographics.csv").write_text(head + "".join(rows), encoding="utf-8")


def summary(root: Path, votes: Mapping[str, str]) -> None:
    """The table of votes; those of the face are others, and belong to nobody here."""
    path = root / "processedResults" / "summaryTable.csv"
    path.parent.mkdir(exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        writer.writerow(HEAD)
        for number, (name, vote) in enumerate(votes.items(), 1):
            writer.writerow([str(number), name, vote, "59.5:60.1", "H", "57", "D"])


def miniature(root: Path) -> dict[str, Any]:
    """Smallest release whose tables are all read; returns the options of its entry."""
    clips(root, "1001_DFA_ANG_XX.wav")
    demographics(root, {1001: "Male"})
    summary(root, {"1001_DFA_ANG_XX": "A"})
    return {"labels": "voice_vote"}


def only(root: Path, **options: Any) -> Item:
    (item,) = CremaD(root, **options).items()
    return item


def test_a_name_and_the_demographics_say_everything(tmp_path: Path) -> None:
    demographics(clips(tmp_path, "1001_DFA_ANG_XX.wav"), {1001: "Male"})
    assert only(tmp_path) == Item(
        id="1001_DFA_ANG_XX",
        label="anger",
        speaker="1001",
        audio="AudioWAV/1001_DFA_ANG_XX.wav",
        text="Don't forget a jacket",
        gender="male",
        sentence="DFA",
    )


def test_six_emotions_twelve_sentences_four_levels(tmp_path: Path) -> None:
    levels = [f"1091_IEO_SAD_{level}.wav" for level in ("LO", "MD", "HI", "XX")]
    codes = [f"1001_{s}_{e}_XX.wav" for s, e in product(SENTENCES, INTENDED)]
    items = list(CremaD(clips(tmp_path, *codes, *levels)).items())
    assert [item.fault for item in items] == [None] * 76
    assert {item.id[9:12]: item.label for item in items} == {
        "ANG": "anger",
        "DIS": "disgust",
        "FEA": "fear",
        "HAP": "happy",
        "NEU": "neutral",
        "SAD": "sad",
    }
    assert len({item.text for item in items}) == len({item.sentence for item in items}) == 12


def test_genders_are_those_of_the_table_and_unknown_without_it(tmp_path: Path) -> None:
    clips(tmp_path, *(f"100{n}_TIE_NEU_XX.wav" for n in (1, 2, 3, 4)))
    assert {item.gender for item in CremaD(tmp_path).items()} == {None}
    demographics(tmp_path, {1001: "Male", 1002: "Female", 1003: "Unknown"})
    genders = {item.speaker: item.gender for item in CremaD(tmp_path).items()}
    assert genders == {"1001": "male", "1002": "female", "1003": None, "1004": None}


def test_votes_are_those_of_the_voice_and_ties_are_left_out(tmp_path: Path) -> None:
    votes = dict(zip("ABCDEFGH", ["A", "D", "F", "H", "N", "S", "A:D", "Q"], strict=True))
    names = {letter: f"10{n:02d}_IWW_HAP_XX" for n, letter in enumerate(votes, 11)}
    clips(tmp_path, *(f"{name}.wav" for name in names.values()), "1050_IWW_HAP_XX.wav")
    summary(tmp_path, {names[letter]: vote for letter, vote in votes.items()})
    corpus = CremaD(tmp_path, labels="voice_vote")
    items = list(corpus.items())
    assert [item.label for item in items[:6]] == list(corpus.classes)
    assert [item.fault for item in items] == [None] * 7 + [
        "voice vote 'Q'; expected one of A, D, F, H, N, S",
        "summaryTable.csv has no row for it",
    ]
    ties = {item.id: item.excluded for item in items if item.excluded}
    assert ties == {names["G"]: "the voice vote is a tie"}
    # Without a label it can be extracted all the same.
    assert [item.label for item in items[6:]] == [None] * 3
    assert all(item.audio and item.text and item.speaker for item in items)
    assert {item.label for item in CremaD(tmp_path).items()} == {"happy"}


def test_the_clip_whose_level_lacks_a_letter_finds_its_vote(tmp_path: Path) -> None:
    summary(clips(tmp_path, "1040_ITH_SAD_X.wav"), {"1040_ITH_SAD_XX": "N"})
    assert only(tmp_path).label == "sad"
    item = only(tmp_path, labels="voice_vote")
    assert (item.id, item.label) == ("1040_ITH_SAD_X", "neutral")


@pytest.mark.parametrize("labels", ["intended", "voice_vote"])
def test_the_silent_recording_is_rejected(tmp_path: Path, labels: str) -> None:
    summary(clips(tmp_path, "1076_MTI_SAD_XX.wav"), {"1076_MTI_SAD_XX": "N"})
    item = only(tmp_path, labels=labels)
    assert (item.id, item.label, item.audio) == ("1076_MTI_SAD_XX", None, None)
    assert (item.fault, item.excluded) == (None, "the published recording is silent")


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("1092_DFA_ANG_XX.wav", "actor 1092; expected 1001 to 1091"),
        ("1001_ABC_ANG_XX.wav", "sentence ABC; expected one of IEO, TIE"),
        ("1001_DFA_SUR_XX.wav", "emotion SUR; expected one of ANG, DIS, FEA, HAP, NEU, SAD"),
        ("1001_DFA_ANG_ZZ.wav", "level ZZ; expected one of LO, MD, HI, XX"),
        ("1001_DFA_ANG.wav", "the name is not actor_sentence_emotion_level"),
        ("1001_DFA_ANG_XX (1).wav", "the name is not actor_sentence_emotion_level"),
    ],
)
def test_what_is_no_clip_of_the_corpus_is_rejected(tmp_path: Path, name: str, reason: str) -> None:
    item = only(clips(tmp_path, name))
    assert str(item.fault).startswith(reason)
    assert item.excluded is None
    assert (item.id, item.label, item.audio, item.text) == (f"AudioWAV/{name}", None, None, None)


def test_other_files_are_none_of_the_corpus(tmp_path: Path) -> None:
    clips(tmp_path, "._1001_DFA_ANG_XX.wav", "1001_DFA_ANG_XX.txt", "1001_IEO_HAP_HI.WAV")
    assert [item.id for item in CremaD(tmp_path).items()] == ["1001_IEO_HAP_HI"]


def test_the_published_counts_add_up() -> None:
    published = CremaD(Path()).published
    assert published is not None
    # 7,442 clips less the silent one
    assert published.utterances == sum(published.by["label"].values()) == 7442 - 1
    assert tuple(published.by["label"]) == CremaD.classes
    assert CremaD(Path(), labels="voice_vote").published is None
    assert CremaD.scripted


def test_which_labels_are_in_use_is_declared() -> None:
    intended, voted = CremaD(Path()), CremaD(Path(), labels="voice_vote")
    assert (intended.variant, voted.variant) == ("intended", "voice_vote")
    assert (intended.label_map["FEA"], voted.label_map["F"]) == ("fear", "fear")
    (problem,) = corpus_problems("crema_d", {"kind": "crema_d", "labels": "face_vote"})
    assert "expected one of 'intended', 'voice_vote'" in problem


def test_a_root_without_clips(tmp_path: Path) -> None:
    (tmp_path / "AudioMP3").mkdir()
    with pytest.raises(ManifestError, match=r"no folder AudioWAV but \['AudioMP3'\].*git lfs pull"):
        list(CremaD(tmp_path).items())


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot read .*summaryTable.csv"),
        (POINTER, "summaryTable.csv is a git-LFS pointer, not a table: run `git lfs pull`"),
        ("FileName,FaceVote\n", r"columns \['FileName', 'FaceVote'\], not \['VoiceVote'\]"),
        ("FileName,VoiceVote\na,A\na,D\n", "ids occur more than once, such as .'a'"),
    ],
)
def test_a_table_of_votes_that_cannot_be_used(
    tmp_path: Path, content: str | None, message: str
) -> None:
    clips(tmp_path, "1001_DFA_ANG_XX.wav")
    if content is not None:
        summary(tmp_path, {})
        (tmp_path / "processedResults" / "summaryTable.csv").write_text(content, encoding="utf-8")
    assert only(tmp_path).label == "anger"
    with pytest.raises(ManifestError, match=message):
        only(tmp_path, labels="voice_vote")


def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> Prepared:
    root = clips(
        tmp_path / "crema_d",
        *(
            f"{a}_{s}_{e}_XX.wav"
            for a, s, e in product(range(1035, 1045), ("TAI", "TSI"), INTENDED)
        ),
        "1040_ITH_SAD_X.wav",
        "1076_MTI_SAD_XX.wav",
    )
    (root / "AudioWAV" / "1044_IOM_NEU_XX.wav").write_text(POINTER, encoding="utf-8")
    demographics(root, {a: "Female" if a % 2 else "Male" for a in range(1035, 1045)})
    votes = {path.stem: path.stem[9] for path in (root / "AudioWAV").iterdir()}
    votes["1040_ITH_SAD_XX"] = votes.pop("1040_ITH_SAD_X")
    summary(root, votes | {"1035_TAI_ANG_XX": "A:N"})
    set_root(monkeypatch, "crema_d", root)
    mapping = {"kind": "crema_d", "protocol": "speaker_folds", "folds": 5, **settings}
    return prepare(corpus_entry("crema_d", mapping), tmp_path / "data")


def test_prepared_no_actor_is_in_two_splits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = prepared(tmp_path, monkeypatch, allow_rejected=1)
    assert (done.utterances, done.card["folds"]) == (121, 5)
    assert list(done.rejected) == ["1044_IOM_NEU_XX", "1076_MTI_SAD_XX"]
    assert "git lfs pull" in done.rejected["1044_IOM_NEU_XX"]
    assert done.card["speakers"] == [{"train": 6, "valid": 2, "test": 2}] * 5
    assert [leak.partition(":")[0] for leak in done.card["leaks"]] == ["sentence"]
    labels = read_labels(tmp_path / "data" / "labels")
    for fold in range(5):
        tested = {row.speaker: row.gender for row in labels if row.splits[fold] == "test"}
        assert sorted(filter(None, tested.values())) == ["female", "male"]
    assert {row.speaker for row in labels} == {str(actor) for actor in range(1035, 1045)}


def test_prepared_by_votes_the_utterances_stay_as_they_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepared(tmp_path, monkeypatch, allow_rejected=1)
    before = list(Manifest.read(tmp_path / "data" / "utterances"))
    done = prepared(tmp_path, monkeypatch, allow_rejected=1, labels="voice_vote")
    assert list(Manifest.read(tmp_path / "data" / "utterances")) == before
    assert done.rejected["1035_TAI_ANG_XX"] == "the voice vote is a tie"
    assert len(read_labels(tmp_path / "data" / "labels")) == 120


def test_a_pointer_in_place_of_a_clip_is_refused_by_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ManifestError, match=r"(?s)1 of 123 utterances cannot be used.*lfs pull"):
        prepared(tmp_path, monkeypatch)
