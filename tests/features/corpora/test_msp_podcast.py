"""The MSP-Podcast adapter on miniature releases with each trap, and through `prepare`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from features.corpora.msp_podcast import MspPodcast
from features.corpus.adapter import Item
from features.corpus.entry import corpus_entry, corpus_problems
from features.corpus.manifest import Manifest, read_labels
from features.corpus.prepare import Prepared, prepare
from features.errors import ManifestError
from tests.support.corpora.small_corpus import set_root, write_level

HEAD = "FileName,EmoClass,EmoAct,EmoVal,EmoDom,SpkrID,Gender,Split_Set"
CLASSES = ("angry", "sad", "happy", "surprise", "fear", "disgust", "contempt", "neutral")


class Release:
    """A release below a temporary folder."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.rows: list[str] = []

    def clip(self, name: str, folder: str = "Audios") -> None:
        write_level(self.root / folder / f"{name}.wav")

    def add(
        self,
        turn: str,
        letter: str,
        split: str,
        speaker: str = "7",
        gender: str = "Female",
        folder: str = "Audios",
    ) -> None:
        self.clip(f"MSP-PODCAST_{turn}", folder)
        row = f"MSP-PODCAST_{turn}.wav,{letter},3.2,4.5,2.75,{speaker},{gender},{split}"
        self.rows.append(row)

    def say(self, turn: str, words: bytes) -> None:
        path = self.root / "Transcripts" / f"MSP-PODCAST_{turn}.txt"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(words)

    def table(self, path: str = "Labels/labels_consensus.csv", head: str = HEAD) -> Path:
        table = self.root / path
        table.parent.mkdir(exist_ok=True)
        table.write_text("\n".join([head, *self.rows]) + "\n", encoding="utf-8")
        return self.root


def miniature(root: Path) -> dict[str, Any]:
    """Smallest release whose tables are all read; returns the options of its entry."""
    made = Release(root)
    made.add("0001_0001", "N", "Train")
    made.say("0001_0001", b"Well.")
    made.table()
    return {}


@pytest.fixture
def release(tmp_path: Path) -> Release:
    return Release(tmp_path / "msp")


def items(root: Path, **options: Any) -> dict[str, Item]:
    return {item.id: item for item in MspPodcast(root, **options).items()}


def test_a_row_with_its_transcript(release: Release) -> None:
    release.add("0001_0008", "N", "Train", speaker="127", gender="Male")
    release.say("0001_0008", "\ufeff  It’s  fine,\r\nreally. \n".encode())
    assert list(MspPodcast(release.table()).items()) == [
        Item(
            id="MSP-PODCAST_0001_0008",
            label="neutral",
            speaker="127",
            audio="Audios/MSP-PODCAST_0001_0008.wav",
            text="It’s fine, really.",
            gender="male",
            split="train",
            session="MSP-PODCAST_0001",
        )
    ]


@pytest.mark.parametrize("audio", ["Audios", "Audio"])
@pytest.mark.parametrize(
    "table",
    ["Labels/labels_consensus.csv", "Labels/labels_concensus.csv", "label/labels_concensus.csv"],
)
def test_releases_name_their_folders_in_several_ways(
    release: Release, audio: str, table: str
) -> None:
    release.add("0001_0008", "A", "Train", folder=audio)
    (item,) = items(release.table(table)).values()
    assert (item.label, item.audio) == ("angry", f"{audio}/MSP-PODCAST_0001_0008.wav")
    assert (release.root / str(item.audio)).is_file()


def test_letters_of_eight_classes(release: Release) -> None:
    for number, letter in enumerate("ASHUFDCNOX"):
        release.add(f"0001_000{number}", letter, "Train")
    corpus = MspPodcast(release.table())
    found = list(corpus.items())
    assert tuple(item.label for item in found[:8]) == corpus.classes == CLASSES
    assert [item.excluded for item in found] == [
        *[None] * 8,
        "label O (other) is not among the classes of eight_class",
        "label X (no agreement) is not among the classes of eight_class",
    ]
    assert [item.label for item in found[8:]] == [None, None]
    assert not any(item.fault for item in found)
    assert all(item.audio for item in found)
    assert (corpus.variant, corpus.label_map["O"], corpus.label_map["C"]) == (
        "eight_class",
        None,
        "contempt",
    )


def test_four_classes_leave_the_others_out(release: Release) -> None:
    for number, letter in enumerate("ASHUFDCNOX"):
        release.add(f"0001_000{number}", letter, "Train")
    corpus = MspPodcast(release.table(), labels="four_class")
    assert corpus.classes == ("neutral", "happy", "sad", "angry")
    found = list(corpus.items())
    kept = [item.label for item in found if item.label]
    assert kept == ["angry", "sad", "happy", "neutral"]
    assert found[3].excluded == "label U (surprise) is not among the classes of four_class"
    assert sum(item.excluded is not None for item in found) == 6


@pytest.mark.parametrize("validation", ["Development", "Validation"])
def test_both_names_of_the_validation_set(release: Release, validation: str) -> None:
    for number, split in enumerate(("Train", validation, "Test1", "Test2")):
        release.add(f"0001_000{number}", "H", split)
    splits = [item.split for item in items(release.table()).values()]
    assert splits == ["train", "valid", "test", "unused"]


def test_test_sets_are_chosen(release: Release) -> None:
    for number in (1, 2, 3):
        release.add(f"0001_000{number}", "H", f"Test{number}")
    root = release.table()
    for chosen in (["Test2"], ["Test1", "Test2", "Test3"]):
        splits = [item.split for item in MspPodcast(root, test_sets=chosen).items()]  # type: ignore[arg-type]
        assert splits == [
            "test" if name in chosen else "unused" for name in ("Test1", "Test2", "Test3")
        ]
    (problem,) = corpus_problems("msp_podcast", {"kind": "msp_podcast", "test_sets": ["Test4"]})
    assert "expected a list, each one of 'Test1', 'Test2', 'Test3'" in problem


def test_test3_has_no_labels_whether_it_is_in_the_table_or_not(release: Release) -> None:
    release.add("0001_0001", "H", "Train")
    release.add("0002_0001", "", "Test3")
    release.add("test3_0002", "", "Test3")
    release.clip("MSP-PODCAST_test3_0001")
    release.clip("._MSP-PODCAST_test3_0001")
    release.say("test3_0001", b"Who knows.")
    found = items(release.table(), test_sets=["Test3"])
    names = ["0002_0001", "test3_0002", "test3_0001"]
    assert list(found)[1:] == [f"MSP-PODCAST_{name}" for name in names]
    for item in list(found.values())[1:]:
        assert (item.label, item.fault, item.excluded) == (None, None, "no label published")
        assert item.audio == f"Audios/{item.id}.wav"
    assert found["MSP-PODCAST_test3_0001"].text == "Who knows."
    sessions = [item.session for item in found.values()]
    assert sessions == ["MSP-PODCAST_0001", "MSP-PODCAST_0002", None, None]


def test_unknown_speakers_are_neither_one_nor_hidden(release: Release) -> None:
    release.add("0001_0001", "H", "Train", speaker="Unknown", gender="Unknown")
    release.add("0001_0002", "S", "Train", speaker="Unknown", gender="Unknown")
    release.add("0001_0003", "N", "Train", speaker="", gender="")
    release.add("0001_0004", "N", "Train", speaker="9", gender="Male")
    release.add("0001_0005", "X", "Train", speaker="Unknown")
    corpus = MspPodcast(release.table())
    found = list(corpus.items())
    assert [item.speaker for item in found] == [
        "unknown_MSP-PODCAST_0001_0001",
        "unknown_MSP-PODCAST_0001_0002",
        "unknown_MSP-PODCAST_0001_0003",
        "9",
        "unknown_MSP-PODCAST_0001_0005",
    ]
    assert [item.gender for item in found] == [None, None, None, "male", "female"]
    assert corpus.disclaimer is not None
    assert corpus.disclaimer.startswith("3 of 4 labelled utterances have an unknown speaker.")


def test_there_is_nothing_to_disclaim_where_all_speakers_are_known(release: Release) -> None:
    release.add("0001_0001", "H", "Train")
    assert MspPodcast(release.table()).disclaimer is None


def test_other_names_of_the_splits(release: Release) -> None:
    for number, name in enumerate(("training", "dev", "VALIDATION")):
        release.add(f"0001_000{number}", "H", name)
    splits = [item.split for item in MspPodcast(release.table()).items()]
    assert splits == ["train", "valid", "valid"]


def test_a_bad_row_loses_nothing_else(release: Release) -> None:
    release.add("0001_0001", "Q", "Train")
    release.add("0001_0002", "H", "Holdout")
    release.add("0001_0003", "H", "Train")
    release.say("0001_0003", "Caf\xe9".encode("latin-1"))
    release.rows.append("../secret.wav,H,1,1,1,7,Female,Train")
    release.rows.append("MSP-PODCAST_0001_0009")
    release.add("0001_0004", "H", "Train")
    found = list(MspPodcast(release.table()).items())
    assert [(item.id, item.fault) for item in found] == [
        ("MSP-PODCAST_0001_0001", "EmoClass 'Q'; expected one of A, S, H, U, F, D, C, N, O, X"),
        (
            "MSP-PODCAST_0001_0002",
            "Split_Set 'Holdout'; expected one of Train, Development, Validation, "
            "Test1, Test2, Test3",
        ),
        ("MSP-PODCAST_0001_0003", "the transcript cannot be read as UTF-8 text"),
        (
            "row 5",
            "FileName '../secret.wav'; expected one such as MSP-PODCAST_0001_0008.wav",
        ),
        (
            "MSP-PODCAST_0001_0009",
            "Split_Set ''; expected one of Train, Development, Validation, Test1, Test2, Test3",
        ),
        ("MSP-PODCAST_0001_0004", None),
    ]
    assert [item.label for item in found] == [None] * 5 + ["happy"]
    assert [item.excluded for item in found if item.fault is None] == [None]
    assert found[3].audio is None


def test_a_root_that_is_no_release(release: Release) -> None:
    release.clip("03a01Fa", "wav")
    with pytest.raises(ManifestError, match=r"no folder Audios or Audio but \['wav'\].*lab-msp"):
        items(release.root)
    release.clip("MSP-PODCAST_0001_0001")
    with pytest.raises(ManifestError, match=r"no folder Labels or Label but \['Audios', 'wav'\]"):
        items(release.root)
    release.table("Labels/labels_detailed.csv")
    with pytest.raises(ManifestError, match=r"no labels_consensus.csv or .*labels_detailed"):
        items(release.root)
    release.table(head=HEAD.replace("SpkrID", "Speaker"))
    with pytest.raises(ManifestError, match=r"'Speaker'.*not \['SpkrID'\]"):
        items(release.root)


def prepared(
    release: Release, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, **settings: Any
) -> Prepared:
    sets = {"Train": "1", "Development": "2", "Test1": "3", "Test2": "4", "Test3": "5"}
    for split, speaker in sets.items():
        for number, letter in enumerate("ASHUFDCNOX"):
            given = "" if split == "Test3" else letter
            # Segments of one podcast in several sets are neither invented nor forbidden.
            turn = f"0001_{speaker}{number:03d}"
            release.add(turn, given, split, speaker="Unknown" if letter == "N" else speaker)
    release.say("0001_1000", b"I am furious.")
    release.table()
    set_root(monkeypatch, "msp_podcast", release.root)
    entry = corpus_entry("msp_podcast", {"kind": "msp_podcast", "protocol": "official", **settings})
    return prepare(entry, tmp_path / "data")


def test_prepared_with_the_official_splits(
    release: Release, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    done = prepared(release, monkeypatch, tmp_path)
    assert (done.utterances, len(done.rejected)) == (50, 18)
    assert list(done.rejected.values()).count("no label published") == 10
    one_each = dict.fromkeys(CLASSES, 1)
    assert done.card["counts"] == [
        {"train": one_each, "valid": one_each, "test": one_each, "unused": one_each}
    ]
    assert done.card["leaks"] == []
    assert done.card["disclaimer"].startswith("4 of 32 labelled utterances")
    labels = read_labels(tmp_path / "data" / "labels")
    assert {row.dialogue for row in labels} == {None}
    manifest = Manifest.read(tmp_path / "data" / "utterances")
    assert [row.text for row in manifest][:2] == ["I am furious.", None]


def test_prepared_all_labelled_test_sets_of_four_classes(
    release: Release, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    done = prepared(
        release, monkeypatch, tmp_path, labels="four_class", test_sets=["Test1", "Test2", "Test3"]
    )
    assert done.card["classes"] == ["neutral", "happy", "sad", "angry"]
    assert done.card["counts"][0]["test"] == dict.fromkeys(done.card["classes"], 2)
    assert done.utterances == 50


def test_a_speaker_in_two_official_sets_is_refused(
    release: Release, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    release.add("0009_0001", "H", "Train", speaker="3")
    with pytest.raises(ManifestError, match="speaker: 1 of"):
        prepared(release, monkeypatch, tmp_path)


def test_the_one_test_set_without_labels_cannot_be_scored(
    release: Release, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with pytest.raises(ManifestError, match="no utterance is in test"):
        prepared(release, monkeypatch, tmp_path, test_sets=["Test3"])
