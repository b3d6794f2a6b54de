"""`check` predicts what `prepare` refuses or warns about, without touching audio."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from features.corpus.entry import corpus_entry
from features.corpus.inspection import list_files
from features.corpus.prepare import rehearse
from features.errors import HeronryError
from pipeline.commands.check import find_problems
from pipeline.params.file import Params
from tests.support.corpora.hub_tables import audio, clip, write_parquet
from tests.support.corpora.small_corpus import HEAD, SmallCorpus


def params(corpus: str = "mine", /, **settings: Any) -> Params:
    corpora = {corpus: {"kind": {"mine": "manifest"}.get(corpus, corpus)} | settings}
    backbones: dict[str, dict[str, str]] = {"tone": {}, "none": {}}
    models = {"m": {"kind": "concat", "speech": "tone"}}
    return Params("m", "cached", corpus, None, {}, corpora, backbones, models)


def checked(corpus: str = "mine", /, **settings: Any) -> tuple[list[str], list[str]]:
    """Problems, and other messages."""
    told: list[str] = []
    return find_problems(params(corpus, **settings), note=told.append), told


def replaced(old: str, new: str) -> Callable[[SmallCorpus], None]:
    return lambda mine: mine.table(*(row.replace(old, new) for row in mine.rows()))


def written(content: bytes) -> Callable[[SmallCorpus], None]:
    def write(mine: SmallCorpus) -> None:
        (mine.root / "manifest.csv").write_bytes(content)

    return write


def separated(mine: SmallCorpus) -> None:
    path = mine.root / "manifest.csv"
    path.write_text(path.read_text().replace(",", ";"))


def one_level_up(mine: SmallCorpus) -> None:
    held = [*mine.root.iterdir()]
    (mine.root / "inner").mkdir()
    for path in held:
        path.rename(mine.root / "inner" / path.name)


def no_table(mine: SmallCorpus) -> None:
    (mine.root / "manifest.csv").unlink()


def ratings(mine: SmallCorpus) -> None:
    rows = (row.replace("sad", "2").replace("happy", "0.5") for row in mine.rows())
    mine.table(*rows)


def lost(mine: SmallCorpus) -> None:
    (mine.root / "2.wav").unlink()


def lost_altogether(mine: SmallCorpus) -> None:
    for path in mine.root.glob("*.wav"):
        path.unlink()


REFUSED: list[tuple[Callable[[SmallCorpus], None], dict[str, Any], str]] = [
    (no_table, {}, "there is no table"),
    (one_level_up, {}, "holds \\['inner'\\]"),
    (separated, {}, "manifest.csv"),
    (written(HEAD.encode() + b"\n0.wav,caf\xe9,,,sad,s,,train,\n" * 3), {}, "manifest.csv"),
    (written(b""), {}, "empty"),
    (written(HEAD.replace("label", "emotion").encode() + b"\n,,,,,,,,x\n"), {}, "emotion"),
    (no_table, {"file": "."}, "metadata.csv"),  # an audiofolder without one
    (replaced("sad", "happy"), {}, "has the classes \\['happy'\\]"),
    (replaced("zzz", ""), {"classes": ["happy", "fear"]}, "'sad'"),
    (ratings, {}, "'0.5', '2', are numbers with fractions"),
    (replaced("s3", "s0"), {}, "the splits leak.*speaker"),
    (replaced("d3", "d0"), {}, "the splits leak.*dialogue"),
    (
        replaced("3.wav,hm 3,,,sad,s3,d3,test,", "0.wav,,,,sad,s3,d3,test,x"),
        {},
        "the splits leak.*recording",
    ),
    (replaced("valid", "train"), {}, "no utterance is in valid"),
    (replaced(",train,", ",,"), {}, "2 of 4 utterances have no split"),
    (replaced("zzz", ""), {"protocol": "leave_one_session_out"}, "have no session"),
    (replaced("zzz", ""), {"protocol": "speaker_folds", "folds": 9}, "9 folds of 4 groups"),
    (replaced("zzz", ""), {"fold": 3}, "fold 3 of a protocol of 1"),
    (replaced("s1", "s0"), {"protocol": "leave_one_speaker_out", "fold": 3}, "fold 3"),
    (replaced("1.wav", "wav/1.wav"), {}, "1 of 4 .* wav/1: wav/1.wav: there is no such file"),
    (lost, {}, "1 of 4 .* 2: 2.wav: there is no such file"),
    (lost_altogether, {"allow_rejected": 9}, "4 of 4 utterances cannot be used"),
]


@pytest.mark.parametrize(("spoil", "settings", "message"), REFUSED)
def test_check_reports_what_prepare_refuses(
    mine: SmallCorpus, spoil: Callable[[SmallCorpus], None], settings: dict[str, Any], message: str
) -> None:
    mine.four()
    spoil(mine)
    before = sorted(mine.root.rglob("*"))
    problems, _ = checked(**settings)
    assert sorted(mine.root.rglob("*")) == before
    assert not Path("data").exists()
    assert re.search(message, " ".join(" ".join(problems).split()))
    with pytest.raises(HeronryError):
        mine.prepare(**settings)


def test_all_at_once(mine: SmallCorpus) -> None:
    mine.four()
    rows = [row.replace("s3,d3", "s0,d0") for row in mine.rows()]
    mine.table(*rows, "gone.wav,,,,sad,s9,,train,gone")
    backbones = {"tone": {}, "none": {}, "odd": {"kind": "nothing"}}
    found = find_problems(replace(params(), backbones=backbones))
    assert len(found) == 3
    for number, part in enumerate(["backbones.odd", "gone: gone.wav: there is no such", "speaker"]):
        assert part in found[number]


@pytest.mark.parametrize(
    "settings",
    [
        {"protocol": "official"},
        {"protocol": "speaker_split"},
        {"protocol": "leave_one_speaker_out", "allow_leak": ["speaker"]},
        {"protocol": "speaker_folds", "folds": 3, "fold": 1},
    ],
)
def test_check_warns_of_what_prepare_warns_of(mine: SmallCorpus, settings: dict[str, Any]) -> None:
    mine.four()
    mine.audio("4.wav")
    both = ["4.wav,hm,,,Sad,s1,,train,a", "4.wav,hm,,,sad,s1,,train,b"]
    mine.table(*mine.rows(), *both)
    problems, told = checked(**settings)
    assert problems == []
    warnings = mine.prepare(**settings).card["warnings"]
    assert any("under more than one label: 1, in 2" in line for line in warnings)
    assert told == [
        "corpus mine: 3 classes, 'Sad', 'happy', 'sad'",
        "corpus mine: offers classes, votes, attributes; asked for: classes",
        *(f"warning: corpus mine: {line}" for line in warnings),
    ]
    assert checked(**settings) == (problems, told)  # prepared by now


def test_without_its_root_a_corpus_is_not_looked_at(
    mine: SmallCorpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine.four()
    monkeypatch.delenv("HERONRY_MINE_ROOT")
    (problem,), told = checked()
    assert "HERONRY_MINE_ROOT is not set" in problem
    assert problem.endswith("not prepared yet: its tables were not looked at")
    assert told == []
    monkeypatch.setenv("HERONRY_MINE_ROOT", str(mine.root))
    mine.prepare()
    monkeypatch.delenv("HERONRY_MINE_ROOT")
    (problem,), told = checked()
    assert "not prepared yet" not in problem
    assert told[0] == "corpus mine: 2 classes, 'happy', 'sad'"  # as its card says
    assert "valid has no utterance of the class 'sad'" in told[1]


def test_a_generated_corpus_is_not_made(mine: SmallCorpus) -> None:
    problems, told = checked("demo")
    assert problems == []
    assert told[0].startswith("corpus demo: 8 classes, 'sad', ")
    assert [*mine.root.iterdir()] == []
    assert not Path("data").exists()
    (problem,), _ = checked("demo", protocol="leave_one_session_out")
    assert "have no session" in problem
    (problem,), _ = checked("demo", utterances=9)
    assert "utterances: given 9; expected an integer from 48" in problem


def test_audio_inside_a_table_is_not_unpacked(mine: SmallCorpus) -> None:
    rows = [
        {
            "audio": audio(clip(200 + n)),
            "label": "happy" if n % 2 else "sad",
            "speaker": f"s{n}",
            "split": split,
        }
        for n, split in enumerate(["train", "train", "train", "train", "valid", "test"])
    ]
    write_parquet(mine.root / "data.parquet", rows)
    settings: dict[str, Any] = {"file": "data.parquet"}
    problems, told = checked(**settings)
    assert (problems, told[0]) == ([], "corpus mine: 2 classes, 'happy', 'sad'")
    assert [path.name for path in mine.root.iterdir()] == ["data.parquet"]
    assert mine.prepare(**settings).utterances == 6
    assert len([*mine.root.rglob("*.wav")]) == 6


def test_each_folder_is_listed_once(mine: SmallCorpus, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        mine.audio(f"a/{number}.wav")
        mine.audio(f"b/{number}.wav")
    listed: list[str] = []
    iterdir = Path.iterdir

    def counting(path: Path) -> Iterator[Path]:
        listed.append(path.name)
        return iterdir(path)

    monkeypatch.setattr(Path, "iterdir", counting)
    names = [f"{folder}/{n}.wav" for n in range(4) for folder in ("a", "b", "c")]
    found = list_files(mine.root, names)
    assert listed == ["a", "b", "c"]
    missing = [name for name, facts in found.items() if isinstance(facts, str)]
    assert missing == ["c/0.wav", "c/1.wav", "c/2.wav", "a/3.wav", "b/3.wav", "c/3.wav"]


def test_backbones_that_read_what_a_slot_is_not_for(mine: SmallCorpus) -> None:
    mine.four()
    words = {"kind": "text_encoder", "checkpoint": "no/where"}
    backbones = {"tone": {}, "none": {}, "words": words, "asr": words | {"kind": "asr_text"}}

    def told_of(**slots: str) -> list[str]:
        models = {"m": {"kind": "concat", **slots}}
        told: list[str] = []
        find_problems(replace(params(), backbones=backbones, models=models), note=told.append)
        return [line for line in told if "models.m" in line]

    assert told_of(text="words", speech="tone", prosody="tone", spectral="tone") == []
    assert told_of(text="asr", speech="none") == []
    (line,) = told_of(text="tone")
    assert line.startswith("warning: models.m.text: backbone 'tone' reads audio, and the slot text")
    speech, nonverbal = told_of(speech="words", nonverbal="asr")
    assert "models.m.speech: backbone 'words' reads words, and the slot speech is for" in speech
    assert "models.m.nonverbal: backbone 'asr' reads recognised words" in nonverbal


def test_the_rehearsal_of_nothing(mine: SmallCorpus) -> None:
    mine.table()
    found = rehearse(corpus_entry("mine", {"kind": "manifest"}), mine.root)
    assert "is empty" in found.problems[0]
    assert (found.classes, found.warnings) == ((), ())
