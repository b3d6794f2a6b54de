"""Votes of CREMA-D: those on the voice are not those on the face, and ties have policies."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from features.corpora._tables.text import LFS_BEGIN
from features.corpora.crema_d import CremaD
from features.corpus.adapter import Item
from features.corpus.entry import corpus_entry
from features.corpus.labels_folder import read_labelled
from features.corpus.prepare import prepare
from features.errors import ManifestError, ParamsError
from tests.support.corpora.small_corpus import set_root, write_level

LETTERS = "ADFHNS"
# The published header: 26 names and the unnamed first one.
HEAD = [
    *("", *LETTERS, "fileName", "numResponses", "agreement", "emoVote", "meanEmoResp"),
    *(f"mean{name}Resp" for name in ("Anger", "Disgust", "Fear", "Happy", "Neutral", "Sad")),
    *("medianEmoResp", "meanEmoRespNorm", "meanAngerRespNorm", "meanDisgustRespNorm"),
    *("meanFearRespNorm", "meanHappyRespNorm", "meanNeutralRespNorm", "meanSadRespNorm"),
    "medianEmoRespNorm",
]
# Voice, face and both: as the last row wins, reading by name alone would give happy.
CLIP = {1: [5, 0, 1, 0, 3, 0], 2: [0, 9, 0, 0, 0, 0], 3: [0, 0, 0, 8, 0, 0]}
BOTH = ("classes", "votes")


def tabulated(
    root: Path, clips: Mapping[str, Mapping[int, Sequence[int]]], head: Sequence[str] = HEAD
) -> Path:
    path = root / "processedResults" / "tabulatedVotes.csv"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, quoting=csv.QUOTE_NONNUMERIC)
        writer.writerow(head)
        for kind in (1, 2, 3):
            for number, (name, by_kind) in enumerate(clips.items(), 1):
                counts = by_kind[kind]
                rest = [max(counts) / sum(counts), "A", *[-1] * (len(HEAD) - 11)]
                row = [str(kind * 100_000 + number), *counts, name, sum(counts), *rest]
                writer.writerow(row[-len(head) :])
    return path


def clip(root: Path, name: str = "1001_DFA_ANG_XX") -> Path:
    write_level(root / "AudioWAV" / f"{name}.wav")
    return root


def items(root: Path, **options: Any) -> list[Item]:
    return list(CremaD(root, **{"targets": BOTH} | options).items())


@pytest.mark.parametrize(
    ("votes_on", "votes"),
    [
        ("voice", {"anger": 5, "fear": 1, "neutral": 3}),
        ("face", {"disgust": 9}),
        ("audio_visual", {"happy": 8}),
    ],
)
def test_votes_are_told_apart_by_row_number(
    tmp_path: Path, votes_on: str, votes: Mapping[str, int]
) -> None:
    tabulated(clip(tmp_path), {"1001_DFA_ANG_XX": CLIP})
    (item,) = items(tmp_path, votes_on=votes_on)
    assert (item.label, item.votes, item.votes_outside) == ("anger", votes, None)
    assert item.values is None  # levels are no arousal
    (item,) = CremaD(tmp_path).items()
    assert item.votes is None


def test_the_misspelt_clip_finds_its_votes_and_one_without_a_row_is_listed(tmp_path: Path) -> None:
    clip(clip(tmp_path, "1040_ITH_SAD_X"), "1050_IWW_HAP_XX")
    tabulated(tmp_path, {"1040_ITH_SAD_XX": CLIP})
    found = items(tmp_path)
    assert found[0].votes == {"anger": 5, "fear": 1, "neutral": 3}
    assert found[1].fault == "tabulatedVotes.csv has no row of votes on voice for it"


@pytest.mark.parametrize(
    ("policy", "excluded", "train_only"),
    [("drop", "the voice vote is a tie", False), ("train", None, True), ("keep", None, False)],
)
def test_ties_of_the_voice_vote(
    tmp_path: Path, policy: str, excluded: str | None, train_only: bool
) -> None:
    name = "1001_DFA_ANG_XX"
    tabulated(clip(tmp_path), {name: CLIP | {1: [4, 0, 4, 0, 0, 0]}})
    table = tmp_path / "processedResults" / "summaryTable.csv"
    table.write_text(f'"","FileName","VoiceVote"\n"1","{name}","A:F"\n')
    (item,) = items(tmp_path, labels="voice_vote", no_agreement=policy)
    assert (item.label, item.excluded, item.train_only) == (None, excluded, train_only)
    assert item.votes == {"anger": 4, "fear": 4}


def test_a_policy_without_effect_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="expected labels: voice_vote"):
        items(tmp_path, no_agreement="keep")
    with pytest.raises(ParamsError, match="expected votes or attributes among the targets"):
        CremaD(tmp_path, labels="voice_vote", no_agreement="keep")


def test_a_table_without_row_numbers_is_refused(tmp_path: Path) -> None:
    tabulated(clip(tmp_path), {"1001_DFA_ANG_XX": CLIP}, HEAD[1:])
    with pytest.raises(ManifestError, match="has no column of row numbers; expected the unnamed"):
        items(tmp_path)


def test_a_pointer_of_git_lfs_is_refused(tmp_path: Path) -> None:
    path = tabulated(clip(tmp_path), {})
    path.write_text(f"{LFS_BEGIN}.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 60000\n")
    with pytest.raises(ManifestError, match="is a git-LFS pointer"):
        items(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"100001",5,', '"100001",6,', "line 2: 10 votes in A, D, F, H, N, S and 9 responses"),
        ('"100001",5,', '"100001",-5,', "line 2: 'A' is '-5'; expected a whole number from 0"),
        ('"100001",5,', '"100001",4.5,', "line 2: 'A' is '4.5'; expected a whole number from 0"),
        ('"100001"', '"x"', "line 2: the row number is 'x'; expected a whole number"),
        ('"100001"', '"400001"', "line 2: its number is 400001; expected 1xxxxx"),
        ('"200001"', '"100002"', "line 3: '1001_DFA_ANG_XX' has a second row of votes on voice"),
        ("5,0,1,0,3,0", "0,0,0,0,0,0", "line 2: 0 votes in A, D, F, H, N, S and 9 responses"),
    ],
)
def test_a_malformed_row_is_refused_with_its_line(
    tmp_path: Path, old: str, new: str, message: str
) -> None:
    path = tabulated(clip(tmp_path), {"1001_DFA_ANG_XX": CLIP})
    content = path.read_text()
    assert old in content
    path.write_text(content.replace(old, new))
    with pytest.raises(ManifestError) as error:
        items(tmp_path)
    assert message in str(error.value)


def test_the_votes_through_prepare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tmp_path / "crema"
    names = [f"10{n:02d}_IEO_SAD_HI" for n in range(1, 4)]
    for name in names:
        clip(root, name)
    tabulated(root, dict.fromkeys(names, CLIP))
    set_root(monkeypatch, "crema_d", root)
    settings = {"targets": ["votes"], "protocol": "speaker_folds", "folds": 3}
    out = tmp_path / "data" / "crema_d"
    done = prepare(corpus_entry("crema_d", settings), out)
    assert "processedResults/tabulatedVotes.csv" in done.card["tables"]
    card, labels = read_labelled(out / "labels")
    assert [label.votes for label in labels] == [{"anger": 5, "fear": 1, "neutral": 3}] * 3
    assert card["targets"] == {
        "tasks": ["votes"],
        "attributes": {},
        "votes": {"raters_min": 9, "raters_mean": 9.0, "raters_max": 9, "outside": 0.0},
        "policies": {"no_agreement": "drop", "votes_on": "voice"},
        "alpha": {"classes": pytest.approx(card["targets"]["alpha"]["classes"])},
    }
    assert card["targets"]["alpha"]["classes"] < 0.1  # all utterances have the same votes
