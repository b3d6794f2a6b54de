"""The IEMOCAP adapter on a miniature release with each trap of the real one."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from features.corpora.iemocap import CODES, LABEL_MAPS, PUBLISHED, Iemocap, Labels
from features.corpus.adapter import Item, Published
from features.corpus.entry import corpus_entry
from features.corpus.manifest import Manifest, read_labels
from features.corpus.prepare import Prepared, prepare
from features.errors import ManifestError, ParamsError
from tests.support.corpora.small_corpus import set_root, write_level

HEAD = "% [START_TIME - END_TIME] TURN_NAME EMOTION [V, A, D]"
RATERS = (
    "C-E2:\tNeutral;\t()",
    "C-F1:\tNeutral; Frustration;\t(bored)",
    "A-E3:\tval 3; act 2; dom  2;\t()",
    "A-M1:\tval 2; act 2; dom  2;\t()",
)
Turn = tuple[float, str, str]  # start, utterance without its dialogue, label


def write_labels(root: Path, dialogue: str, *turns: Turn, more: str = "") -> None:
    blocks = [HEAD, ""]
    for start, name, code in turns:
        times = f"[{start:.4f} - {start + 2:.4f}]"
        blocks += [f"{times}\t{dialogue}_{name}\t{code}\t[2.5000, 2.5000, 2.5000]", *RATERS, ""]
    path = root / f"Session{dialogue[4]}/dialog/EmoEvaluation/{dialogue}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(blocks) + more, encoding="utf-8")


def write_texts(root: Path, dialogue: str, content: str, *, encoding: str = "utf-8") -> None:
    path = root / f"Session{dialogue[4]}/dialog/transcriptions/{dialogue}.txt"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode(encoding))


def write_audio(root: Path, utterance: str) -> None:
    dialogue = utterance.rpartition("_")[0]
    write_level(root / f"Session{dialogue[4]}/sentences/wav/{dialogue}/{utterance}.wav", 4000)


def miniature(root: Path) -> dict[str, Any]:
    """Smallest release whose tables are all read; returns the options of its entry."""
    write_labels(root, "Ses01F_impro01", (1.0, "F000", "neu"))
    write_texts(root, "Ses01F_impro01", "Ses01F_impro01_F000 [1-3]: Well.")
    return {}


def items(root: Path, **options: Any) -> dict[str, Item]:
    return {item.id: item for item in Iemocap(root, **options).items()}


def test_all_that_is_known_of_an_utterance(tmp_path: Path) -> None:
    write_labels(tmp_path, "Ses01F_script01_1", (6.2901, "M012", "exc"))
    text = "Ses01F_script01_1_M012 [006.2901-008.2357]: Annie--  I DON'T know. [LAUGHTER]\n"
    write_texts(tmp_path, "Ses01F_script01_1", text)
    id = "Ses01F_script01_1_M012"
    assert list(Iemocap(tmp_path).items()) == [
        Item(
            id=id,
            label="happy",
            speaker="Ses01_M",
            audio=f"Session1/sentences/wav/Ses01F_script01_1/{id}.wav",
            text="Annie--  I DON'T know. [LAUGHTER]",
            dialogue="Ses01F_script01_1",
            turn=0,
            gender="male",
            sentence="script01_1: annie i dont know",
            session="Ses01",
        )
    ]


def test_who_speaks_is_the_letter_of_the_last_part(tmp_path: Path) -> None:
    # The first letter is who wore the markers; `1b` moves all fixed positions by one.
    for dialogue in ("Ses05M_script01_1b", "Ses05F_impro01", "Ses05M_impro08a"):
        write_labels(tmp_path, dialogue, (1, "F000", "ang"), (3, "M000", "ang"))
    found = items(tmp_path)
    assert len(found) == 6
    for id, item in found.items():
        letter = id.rpartition("_")[2][0]
        assert item.speaker == f"Ses05_{letter}"
        assert item.gender == {"F": "female", "M": "male"}[letter]
        assert item.session == "Ses05"
        assert item.dialogue == id.rpartition("_")[0]


def test_turns_follow_the_start_times_over_both_speakers(tmp_path: Path) -> None:
    turns: list[Turn] = [(100.5, "F001", "neu"), (9.25, "M000", "neu"), (20, "F000", "xxx")]
    write_labels(tmp_path, "Ses01F_impro01", *turns)
    write_labels(tmp_path, "Ses01M_impro01", (1, "F000", "sad"))
    found = [(item.id, item.turn) for item in Iemocap(tmp_path).items()]
    assert found == [
        ("Ses01F_impro01_M000", 0),
        ("Ses01F_impro01_F000", 1),
        ("Ses01F_impro01_F001", 2),
        ("Ses01M_impro01_F000", 0),
    ]


@pytest.mark.parametrize(
    ("labels", "classes", "kept"),
    [
        ("four_class", ("happy", "sad", "neutral", "angry"), {"hap", "exc", "sad", "neu", "ang"}),
        (
            "four_class_without_excited",
            ("happy", "sad", "neutral", "angry"),
            {"hap", "sad", "neu", "ang"},
        ),
        (
            "six_class",
            ("happy", "sad", "neutral", "angry", "excited", "frustrated"),
            {"hap", "exc", "sad", "neu", "ang", "fru"},
        ),
    ],
)
def test_label_maps(
    tmp_path: Path, labels: Labels, classes: tuple[str, ...], kept: set[str]
) -> None:
    turns = [(float(n), f"F{n:03d}", code) for n, code in enumerate((*CODES, "que"))]
    write_labels(tmp_path, "Ses01F_impro01", *turns)
    corpus = Iemocap(tmp_path, labels=labels)
    assert (corpus.classes, corpus.variant) == (classes, labels)
    for (_, name, code), item in zip(turns, corpus.items(), strict=True):
        assert item.id.endswith(name)
        assert item.audio is not None  # features do not depend on the labels
        if code in kept:
            reasons: tuple[str | None, str | None] = (None, None)
            assert item.label == corpus.label_map[code]
        else:
            assert item.label is corpus.label_map.get(code) is None
            wrong = f"label {code}; expected one of {', '.join(CODES)}"
            other = f"label {code} is not among the classes of {labels}"
            reasons = (None, other) if code in CODES else (wrong, None)
        assert (item.fault, item.excluded) == reasons


def test_excited_is_happy_in_four_classes_only(tmp_path: Path) -> None:
    assert Iemocap(tmp_path).label_map["exc"] == "happy"
    assert Iemocap(tmp_path, labels="six_class").label_map["exc"] == "excited"
    assert Iemocap(tmp_path, labels="four_class_without_excited").label_map["exc"] is None


@pytest.mark.parametrize("labels", LABEL_MAPS)
def test_published_counts_add_up(tmp_path: Path, labels: Labels) -> None:
    corpus = Iemocap(tmp_path, labels=labels)
    published = corpus.published
    assert isinstance(published, Published)
    assert set(published.by["label"]) == set(corpus.classes)
    for counts in published.by.values():
        assert sum(counts.values()) == published.utterances


def test_published_counts_of_two_label_maps_differ_by_the_excited() -> None:
    merged, apart, six = (PUBLISHED[name] for name in LABEL_MAPS)
    excited = merged.utterances - apart.utterances
    assert excited == six.by["label"]["excited"] == 1041
    in_session_5 = merged.by["session"]["Ses05"] - apart.by["session"]["Ses05"]
    assert in_session_5 == 299  # as the test split of the conversation papers has


def test_lines_of_other_shapes_are_no_utterances(tmp_path: Path) -> None:
    dialogue = "Ses02F_impro01"
    write_labels(tmp_path, dialogue, (1, "F000", "neu"), (5, "M000", "neu"), (9, "M001", "ang"))
    lines = (
        "\ufeffSes02F_impro01_F000 [001.0000-003.0000]: Excuse me.",
        "M: [LAUGHTER]",
        "Ses02F_impro01_FXX0 [003.0000-004.0000]: Hm.",
        "F: yeah: [006.0000-007.0000]: no",
        "",
        "Ses02F_impro01_M000 [005.0000-007.0000]:   ",
        "Ses02F_impro01_F000 [009.0000-011.0000]: said twice",
    )
    write_texts(tmp_path, dialogue, "\r\n".join(lines))
    assert {id: item.text for id, item in items(tmp_path).items()} == {
        "Ses02F_impro01_F000": "Excuse me.",
        "Ses02F_impro01_M000": None,
        "Ses02F_impro01_M001": None,
    }
    assert all(item.audio for item in items(tmp_path).values())


def test_other_files_are_none_of_the_corpus(tmp_path: Path) -> None:
    write_labels(tmp_path, "Ses01F_impro01", (1, "F000", "neu"))
    folder = tmp_path / "Session1/dialog/EmoEvaluation"
    line = "[1.0000 - 3.0000]\tSes01F_impro02_F000\tang\t[2.5000, 2.5000, 2.5000]\n"
    for name in ("Categorical", "Attribute", "Self-evaluation"):
        (folder / name).mkdir()
        (folder / name / "Ses01F_impro02.txt").write_text(line)
    (folder / "._Ses01F_impro01.txt").write_bytes(b"\x00\x05\x16\x07\xff")
    (folder / "._Ses01F_impro02.txt").write_text(line)
    (tmp_path / "._Session1").touch()
    (tmp_path / "Session1/sentences/wav/Ses01F_impro02").mkdir(parents=True)
    assert list(items(tmp_path)) == ["Ses01F_impro01_F000"]


def test_label_lines_that_cannot_be_read_are_listed(tmp_path: Path) -> None:
    more = (
        "[1.0 - 2.0]\tSes01F_impro01_F001\tneutral\t[2.5, 2.5, 2.5]\n"
        "[1.0 - 2.0]\tSes01F_impro09_F000\tneu\t[2.5, 2.5, 2.5]\n"
        "[1.0 - 2.0]\tSes01F_impro01_X000\tneu\t[2.5, 2.5, 2.5]\n"
    )
    write_labels(tmp_path, "Ses01F_impro01", (1, "F000", "neu"), more=more)
    good, *bad = Iemocap(tmp_path).items()
    assert (good.id, good.label, good.turn) == ("Ses01F_impro01_F000", "neutral", 0)
    assert [item.id for item in bad] == [
        f"Session1/dialog/EmoEvaluation/Ses01F_impro01.txt:{line}" for line in (8, 9, 10)
    ]
    for item in bad:
        assert (item.label, item.audio, item.text) == (None, None, None)
        assert "is not [start - end], an utterance of this dialogue" in str(item.fault)


def test_windows_text(tmp_path: Path) -> None:
    write_labels(tmp_path, "Ses01F_impro01", (1, "F000", "neu"))
    text = "Ses01F_impro01_F000 [001.0000-003.0000]: I don’t… caf\u00e9\n"
    for encoding in ("utf-8", "cp1252"):
        write_texts(tmp_path, "Ses01F_impro01", text, encoding=encoding)
        assert items(tmp_path)["Ses01F_impro01_F000"].text == "I don’t… café"


def test_lines_of_a_play_are_one_sentence_in_all_sessions(tmp_path: Path) -> None:
    said = {
        "Ses01F_script01_1": "How do you know? -- [BREATHING] Tell me.",
        "Ses05M_script01_1b": "how do you KNOW--tell me",
        "Ses02F_script01_2": "How do you know? Tell me.",
        "Ses01F_impro01": "How do you know? Tell me.",
        "Ses01F_script02_1": "[LAUGHTER]",
    }
    for dialogue, text in said.items():
        write_labels(tmp_path, dialogue, (1, "F000", "neu"))
        write_texts(tmp_path, dialogue, f"{dialogue}_F000 [001.0000-003.0000]: {text}\n")
    sentences = {item.dialogue: item.sentence for item in items(tmp_path).values()}
    assert sentences == {
        "Ses01F_script01_1": "script01_1: how do you know tell me",
        "Ses05M_script01_1b": "script01_1: how do you know tell me",
        "Ses02F_script01_2": "script01_2: how do you know tell me",
        "Ses01F_impro01": None,
        "Ses01F_script02_1": None,
    }


def test_improvised_only(tmp_path: Path) -> None:
    write_labels(tmp_path, "Ses01F_script03_2", (1, "F000", "hap"), (3, "F001", "xxx"))
    write_labels(tmp_path, "Ses01F_impro03", (1, "F000", "hap"))
    corpus = Iemocap(tmp_path, improvised_only=True)
    assert (corpus.variant, corpus.published) == ("four_class_improvised", None)
    found = items(tmp_path, improvised_only=True)
    assert found["Ses01F_impro03_F000"].label == "happy"
    play = found["Ses01F_script03_2_F000"]
    assert play.label is None
    assert play.excluded == "it is from a play (script03_2), and improvised_only is set"
    assert found["Ses01F_script03_2_F001"].excluded == (
        "label xxx is not among the classes of four_class"
    )
    whole = items(tmp_path)
    assert [item.audio for item in found.values()] == [item.audio for item in whole.values()]


def test_without_audio(tmp_path: Path) -> None:
    write_labels(tmp_path, "Ses01F_impro03", (1, "F000", "hap"))
    write_texts(tmp_path, "Ses01F_impro03", "Ses01F_impro03_F000 [001.0000-003.0000]: Hi.")
    (item,) = Iemocap(tmp_path, audio=False).items()
    assert (item.label, item.audio, item.text) == ("happy", None, "Hi.")


def test_a_root_without_sessions(tmp_path: Path) -> None:
    (tmp_path / "IEMOCAP_full_release").mkdir()
    with pytest.raises(ManifestError, match=r"Session1 to Session5 but \['IEMOCAP_full_release'\]"):
        items(tmp_path)


def test_a_session_without_labels(tmp_path: Path) -> None:
    write_labels(tmp_path, "Ses01F_impro03", (1, "F000", "hap"))
    (tmp_path / "Session2/sentences/wav").mkdir(parents=True)
    with pytest.raises(ManifestError, match=r"Session2 holds no label files dialog/EmoEvaluation"):
        items(tmp_path)


@pytest.fixture
def release(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Five sessions, a scene and a play each, of both actors; four classes and what is none."""
    root = tmp_path / "IEMOCAP_full_release"
    for session in range(1, 6):
        for dialogue in (f"Ses0{session}F_impro01", f"Ses0{session}M_script01_1"):
            turns = [
                (2.0 * n, f"{'FM'[n % 2]}{n:03d}", code)
                for n, code in enumerate(("hap", "exc", "sad", "neu", "ang", "xxx", "fru"))
            ]
            write_labels(root, dialogue, *turns)
            # The last one has no transcript.
            texts = [f"{dialogue}_{name} [001-002]: Line {name}." for _, name, _ in turns[:-1]]
            write_texts(root, dialogue, "\n".join(texts))
            for _, name, _ in turns:
                write_audio(root, f"{dialogue}_{name}")
    set_root(monkeypatch, "iemocap", root)
    return root


def prepared(out: Path, **settings: Any) -> Prepared:
    return prepare(corpus_entry("iemocap", settings), out)


def test_prepare_leaves_sessions_out(release: Path, tmp_path: Path) -> None:
    done = prepared(tmp_path / "data", protocol="leave_one_session_out")
    assert release.is_dir()
    assert (done.card["folds"], done.utterances, len(done.rejected)) == (5, 70, 20)
    labels = read_labels(tmp_path / "data" / "labels")
    assert Counter(row.label for row in labels) == {
        "happy": 20, "sad": 10, "neutral": 10, "angry": 10
    }  # fmt: skip
    for fold in range(5):
        for split in ("valid", "test"):
            sessions = {row.speaker[:5] for row in labels if row.splits[fold] == split}
            assert len(sessions) == 1
        assert {row.speaker for row in labels if row.splits[fold] == "test"} == {
            f"Ses0{fold + 1}_F",
            f"Ses0{fold + 1}_M",
        }
    # The lines of the play cross the splits, and nothing else does.
    assert [leak.partition(":")[0] for leak in done.card["leaks"]] == ["sentence"]
    assert done.card["leaks"][0].startswith("sentence: 5 of 5 ")


def test_prepare_with_the_split_of_the_conversation_papers(release: Path, tmp_path: Path) -> None:
    assert release.is_dir()
    with pytest.raises(ManifestError, match="have no split of their own"):
        prepared(tmp_path / "data", protocol="official")
    settings = {"labels": "six_class", "erc_split": True, "improvised_only": True}
    done = prepared(tmp_path / "data", protocol="official", **settings)
    assert done.card["speakers"] == [{"train": 6, "valid": 2, "test": 2}]
    assert done.card["leaks"] == []
    assert done.card["counts"][0]["test"] == dict.fromkeys(done.card["classes"], 1)
    splits = {row.speaker[:5]: row.splits for row in read_labels(tmp_path / "data" / "labels")}
    assert splits == {
        "Ses01": ("train",),
        "Ses02": ("train",),
        "Ses03": ("train",),
        "Ses04": ("valid",),
        "Ses05": ("test",),
    }


def test_dialogues_of_one_session_on_both_sides_share_their_speakers(
    release: Path, tmp_path: Path
) -> None:
    assert release.is_dir()
    settings: dict[str, Any] = {"protocol": "official", "erc_split": "dialogues"}
    with pytest.raises(ManifestError, match=r"speaker.*allow_leak"):
        prepared(tmp_path / "data", **settings)
    done = prepared(tmp_path / "data", **settings, allow_leak=["speaker"])
    assert done.card["speakers"][0]["test"] == 2
    assert done.card["speakers"][0]["train"] == 8


def test_a_tenth_of_the_dialogues_validates(tmp_path: Path) -> None:
    """Of Sessions 1 to 4, whole, always the same ones; their speakers are trained on too."""
    dialogues = [
        f"Ses0{n}{letter}_impro0{k}" for n in (1, 2, 3, 4) for letter in "FM" for k in (1, 2, 3)
    ]
    for dialogue in [*dialogues, "Ses05F_impro01", "Ses02F_script01_1"]:
        write_labels(tmp_path, dialogue, (1.0, "F000", "neu"), (3.0, "M000", "ang"))
    found = items(tmp_path, erc_split="dialogues", improvised_only=True)
    splits: dict[str | None, set[str | None]] = {}
    for item in found.values():
        if item.excluded is None:
            splits.setdefault(item.dialogue, set()).add(item.split)
    (test,) = splits.pop("Ses05F_impro01")
    assert test == "test"
    assert splits.keys() == set(dialogues)
    assert all(len(each) == 1 for each in splits.values())
    assert sum(each == {"valid"} for each in splits.values()) == 2  # of 24
    again = items(tmp_path, erc_split="dialogues", improvised_only=True)
    assert {id: item.split for id, item in again.items()} == {
        id: item.split for id, item in found.items()
    }


def test_other_labels_leave_the_utterances_as_they_are(release: Path, tmp_path: Path) -> None:
    manifest = tmp_path / "data" / "utterances" / "manifest.jsonl"
    assert release.is_dir()
    written = []
    for settings in ({}, {"labels": "six_class"}, {"improvised_only": True}):
        prepared(tmp_path / "data", protocol="leave_one_session_out", **settings)
        written.append(manifest.read_bytes())
    assert written[0] == written[1] == written[2]


def test_prepare_without_audio(release: Path, tmp_path: Path) -> None:
    assert release.is_dir()
    settings = {"labels": "six_class", "audio": False, "allow_rejected": 10}
    done = prepared(tmp_path / "data", protocol="leave_one_session_out", **settings)
    manifest = Manifest.read(tmp_path / "data" / "utterances")
    assert {row.audio for row in manifest} == {None}
    assert done.utterances == 60
    assert done.rejected["Ses01F_impro01_F006"] == "it has neither audio nor text"


def test_a_recording_that_is_gone_is_listed(release: Path, tmp_path: Path) -> None:
    id = "Ses03F_impro01_F002"
    (release / f"Session3/sentences/wav/Ses03F_impro01/{id}.wav").unlink()
    with pytest.raises(ManifestError, match=rf"1 of 70 utterances cannot be used[^$]*{id}"):
        prepared(tmp_path / "data", protocol="leave_one_session_out")
    done = prepared(tmp_path / "data", protocol="leave_one_session_out", allow_rejected=1)
    assert done.utterances == 69
    card = json.loads((tmp_path / "data" / "labels" / "card.json").read_text())
    assert sum(card["counts"][0]["train"].values()) == 29  # 3 sessions of 10, fold 0 trains on 3


def test_settings_are_checked() -> None:
    with pytest.raises(ParamsError, match=r"iemocap\.labels: given 'five'.*'four_class'"):
        corpus_entry("iemocap", {"labels": "five"})
    with pytest.raises(ParamsError, match=r"iemocap\.audio: given 1; expected true or false"):
        corpus_entry("iemocap", {"audio": 1})
