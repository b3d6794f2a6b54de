"""The whole of `prepare` on small corpora: what it writes, what it refuses, and what it keeps."""

from __future__ import annotations

import csv
import json
import os
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from features.corpora._adapter import Item, Source
from features.errors import ManifestError, ParamsError
from features.manifest import Manifest, read_labels
from features.preparation import CorpusEntry, Prepared, corpus_entry, corpus_problems, prepare

REAL = Path(__file__).parents[2] / "shared" / "data" / "ravdess"
HOUR_AGO_NS = 1_700_000_000 * 10**9
HEAD = "audio,text,start,stop,label,speaker,dialogue,split,id"
SPLITS = ("train", "train", "valid", "test")


class Corpus:
    """A corpus of the kind `manifest` in a temporary folder, and its outputs."""

    def __init__(self, folder: Path) -> None:
        self.root, self.out = folder / "corpus", folder / "data" / "mine"
        self.root.mkdir()

    def audio(self, name: str, seconds: float = 0.25) -> None:
        path = self.root / name
        path.parent.mkdir(exist_ok=True, parents=True)
        # A level of its own: equal files would be one recording.
        level = zlib.crc32(name.encode()) / 2**32 - 0.5
        soundfile.write(path, np.full(round(16_000 * seconds), level), 16_000)
        os.utime(path, ns=(HOUR_AGO_NS, HOUR_AGO_NS))

    def table(self, *rows: str) -> None:
        (self.root / "manifest.csv").write_text("\n".join([HEAD, *rows]) + "\n", encoding="utf-8")

    def four(self) -> None:
        """Four speakers with an utterance each, happy and sad in turn."""
        for number in range(4):
            self.audio(f"{number}.wav")
        self.table(*self.rows())

    def rows(self) -> list[str]:
        return [
            f"{n}.wav,hm {n},,,{('happy', 'sad')[n % 2]},s{n},d{n},{split},"
            for n, split in enumerate(SPLITS)
        ]

    def prepare(self, **settings: Any) -> Prepared:
        entry = corpus_entry("mine", {"kind": "manifest", **settings})
        return prepare("mine", entry, self.out)

    def rejected(self) -> dict[str, str]:
        with (self.out / "labels" / "rejected.csv").open(newline="") as file:
            return {row["id"]: row["reason"] for row in csv.DictReader(file)}

    def written(self) -> dict[str, bytes]:
        files = sorted(path for path in self.out.rglob("*") if path.is_file())
        return {path.relative_to(self.out).as_posix(): path.read_bytes() for path in files}


@pytest.fixture
def mine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Corpus:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HERONRY_MINE_ROOT", str(tmp_path / "corpus"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return Corpus(tmp_path)


def test_what_is_written(mine: Corpus) -> None:
    mine.four()
    done = mine.prepare(shard_seconds=9, classes=["sad", "happy"])
    assert sorted(mine.written()) == [
        "labels/card.json",
        "labels/labels.jsonl",
        "labels/rejected.csv",
        "utterances/corpus.json",
        "utterances/manifest.jsonl",
    ]
    manifest = Manifest.read(mine.out / "utterances")
    assert (manifest.corpus, manifest.kind, manifest.generated) == ("mine", "manifest", False)
    assert (manifest.shard_seconds, manifest.shard_characters) == (9, 500_000)
    first = manifest[0]
    assert (first.id, first.audio, first.text, first.seconds) == ("0", "0.wav", "hm 0", 0.25)
    assert first.bytes == 8044
    assert len(first.sha256) == 64
    labels = read_labels(mine.out / "labels")
    assert [(row.id, row.label, row.speaker, row.splits) for row in labels] == [
        ("0", "happy", "s0", ("train",)),
        ("1", "sad", "s1", ("train",)),
        ("2", "happy", "s2", ("valid",)),
        ("3", "sad", "s3", ("test",)),
    ]
    assert (done.utterances, done.hours, done.rejected) == (4, 1 / 3600, {})
    assert json.loads((mine.out / "labels" / "card.json").read_text()) == done.card


def test_the_card(mine: Corpus) -> None:
    mine.four()
    card = mine.prepare().card
    assert card == {
        "corpus": "mine",
        "kind": "manifest",
        "title": "A corpus described by a table",
        "licence": "as its owner says",
        "citation": "as its owner says",
        "obtain": "It is the user's own.",
        "disclaimer": None,
        "classes": ["happy", "sad"],
        "protocol": "official",
        "folds": 1,
        "expected": None,
        "rejected": 0,
        "allow_leak": [],
        "leaks": [],
        "speakers": [{"train": 2, "valid": 1, "test": 1}],
        "counts": [
            {
                "train": {"happy": 1, "sad": 1},
                "valid": {"happy": 1, "sad": 0},
                "test": {"happy": 0, "sad": 1},
            }
        ],
    }


def test_preparing_twice_writes_the_same_bytes(mine: Corpus) -> None:
    mine.four()
    mine.prepare()
    first = mine.written()
    (mine.out / "labels" / "stale.txt").touch()
    mine.prepare()
    assert mine.written() == first


def test_relabelling_and_another_protocol_leave_the_utterances_alone(mine: Corpus) -> None:
    mine.four()
    mine.prepare()
    before = mine.written()
    rows = [row.replace("sad", "angry") for row in mine.rows()]
    rows[0] = rows[0].replace("happy", "")
    mine.table(*rows)
    mine.prepare(protocol="speaker_folds", folds=3)
    after = mine.written()
    assert mine.rejected() == {"0": "it has no label"}
    assert [row.id for row in read_labels(mine.out / "labels")] == ["1", "2", "3"]
    for name in ("utterances/corpus.json", "utterances/manifest.jsonl"):
        assert after[name] == before[name]


def test_files_that_have_not_changed_are_not_hashed_again(
    mine: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine.four()
    mine.prepare()
    first = mine.written()
    hashed: list[str] = []

    def listen(path: Path) -> str:
        hashed.append(path.name)
        return "0" * 64

    monkeypatch.setattr("features.inspection.file_sha256", listen)
    mine.prepare()
    assert hashed == []
    assert mine.written() == first
    mine.audio("1.wav", seconds=0.5)
    mine.prepare()
    assert hashed == ["1.wav"]
    assert Manifest.read(mine.out / "utterances")[1].seconds == 0.5


def test_spans_of_one_recording(mine: Corpus) -> None:
    mine.audio("long.wav", seconds=3)
    mine.table(
        "long.wav,,0,1,sad,a,d,train,u0",
        "long.wav,,1,2.5,happy,b,d,valid,u1",
        "long.wav,,2.5,3.4,happy,c,d,test,u2",
        "long.wav,,2.5,3.6,happy,c,d,test,u3",
        "long.wav,,3,,happy,c,d,test,u4",
    )
    allowed = {"allow_leak": ["dialogue", "recording"], "allow_rejected": 2}
    done = mine.prepare(**allowed)
    assert [row.seconds for row in Manifest.read(mine.out / "utterances")] == [1.0, 1.5, 0.5]
    assert mine.rejected() == {
        "u3": "long.wav: the span 2.5 to 3.6 s is not within 3.000 s",
        "u4": "long.wav: the span 3.0 to 3.0 s is not within 3.000 s",
    }
    assert [leak.partition(":")[0] for leak in done.card["leaks"]] == ["dialogue", "recording"]
    assert done.card["allow_leak"] == ["dialogue", "recording"]


def test_text_alone_needs_no_audio(mine: Corpus) -> None:
    mine.table(*(f",hm,,,{'ab'[n % 2]},s{n},,{split},u{n}" for n, split in enumerate(SPLITS)))
    done = mine.prepare()
    assert (done.hours, done.utterances) == (0.0, 4)
    assert Manifest.read(mine.out / "utterances")[0].audio_content is None


def spoil(mine: Corpus, name: str, content: bytes | None) -> None:
    path = mine.root / name
    path.unlink()
    if content is not None:
        path.write_bytes(content)


def test_unusable_audio_is_listed_whole_and_loses_nothing_else(mine: Corpus) -> None:
    mine.four()
    for n in (4, 5, 6):
        mine.audio(f"{n}.wav")
    extra = [f"{n}.wav,,,,sad,s1,,train," for n in (4, 5, 6)]
    mine.table(*mine.rows(), *extra)
    spoil(mine, "4.wav", None)
    spoil(mine, "5.wav", b"no audio")
    spoil(mine, "6.wav", b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(ManifestError) as caught:
        mine.prepare(allow_rejected=2)
    message = str(caught.value)
    assert "corpus 'mine': 3 of 7 utterances cannot be used" in message
    assert "4: 4.wav: there is no such file below the corpus root" in message
    assert "HERONRY_MINE_ROOT" in message
    assert "corpora.mine.allow_rejected: 3" in message
    assert list(mine.rejected()) == ["4", "5", "6"]
    assert "cannot be decoded" in mine.rejected()["5"]
    assert "git lfs pull" in mine.rejected()["6"]
    kept = mine.written()
    assert len(Manifest.read(mine.out / "utterances")) == 4
    assert len(read_labels(mine.out / "labels")) == 4
    done = mine.prepare(allow_rejected=3)
    assert mine.written() == kept
    assert list(done.rejected) == ["4", "5", "6"]
    assert done.card["rejected"] == 3


def test_only_twenty_are_quoted(mine: Corpus) -> None:
    mine.four()
    mine.table(*mine.rows(), *(f"x{n}.wav,,,,sad,s1,,train," for n in range(25)))
    with pytest.raises(ManifestError, match=r"x19: x19\.wav.*\n  and 5 more\n") as caught:
        mine.prepare()
    assert "x20" not in str(caught.value)
    assert len(mine.rejected()) == 25


def test_a_wrong_root_whose_files_are_all_missing(mine: Corpus) -> None:
    mine.table(*mine.rows())
    with pytest.raises(ManifestError, match="4 of 4 utterances cannot be used") as caught:
        mine.prepare(allow_rejected=4)
    assert "allow_rejected" not in str(caught.value)
    assert len(mine.rejected()) == 4


def test_roots_that_are_missing_or_empty(mine: Corpus, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ParamsError, match=r"HERONRY_MINE_ROOT\), is empty"):
        mine.prepare()
    mine.root.rmdir()
    with pytest.raises(ParamsError, match=r"HERONRY_MINE_ROOT\), does not exist"):
        mine.prepare()
    monkeypatch.delenv("HERONRY_MINE_ROOT")
    with pytest.raises(ParamsError, match="HERONRY_MINE_ROOT is not set"):
        mine.prepare()


def refuse_empty(mine: Corpus) -> None:
    mine.table()


def refuse_ids(mine: Corpus) -> None:
    mine.table(*mine.rows(), "0.wav,,,,sad,s0,,train,")


def refuse_one_class(mine: Corpus) -> None:
    mine.table(*(row.replace("sad", "happy") for row in mine.rows()))


def refuse_speaker(mine: Corpus) -> None:
    mine.table(*(row.replace("s3", "s0") for row in mine.rows()))


def refuse_dialogue(mine: Corpus) -> None:
    mine.table(*(row.replace("d3", "d0") for row in mine.rows()))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (refuse_empty, r"'mine' is empty: nothing .*corpus; .*set HERONRY_MINE_ROOT"),
        (refuse_ids, r"id '0' occurs in lines \[2, 6\]; expected each id once"),
        (refuse_one_class, r"has the classes \['happy'\]; expected two or more"),
        (refuse_speaker, r"speaker: 1 of 3 .* s0 \(train, test\)[^$]*allow_leak: \[speaker\]"),
        (refuse_dialogue, r"dialogue: 1 of 3 .* d0 \(train, test\)[^$]*allow_leak: \[dialogue\]"),
    ],
)
def test_refusals(mine: Corpus, change: Callable[[Corpus], None], message: str) -> None:
    mine.four()
    change(mine)
    with pytest.raises(ManifestError, match=message):
        mine.prepare()
    assert not (mine.out / "labels" / "labels.jsonl").exists()


def test_a_speaker_in_two_splits_if_the_params_say_so(mine: Corpus) -> None:
    mine.four()
    refuse_speaker(mine)
    card = mine.prepare(allow_leak=["speaker"]).card
    assert card["allow_leak"] == ["speaker"]
    assert card["leaks"] == [
        "speaker: 1 of 3 occur in more than one split (fold 0), such as s0 (train, test)"
    ]


def test_a_label_outside_the_classes(mine: Corpus) -> None:
    mine.four()
    with pytest.raises(ManifestError, match=r"label 'sad' in lines \[3, 5\].*\['happy', 'fear'\]"):
        mine.prepare(classes=["happy", "fear"])


def test_ids_and_labels_of_any_adapter_are_checked(
    mine: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine.four()
    monkeypatch.setattr("features.corpora.manifest._repeated", lambda *_: [])
    monkeypatch.setattr("features.corpora.manifest._outside", lambda *_: [])
    with pytest.raises(ManifestError, match=r"2 labels are not among .*1: 'sad', 3: 'sad'; exp"):
        mine.prepare(classes=["happy", "fear"])
    refuse_ids(mine)
    with pytest.raises(ManifestError, match=r"corpus 'mine': 1 ids occur more than once.*'0'"):
        mine.prepare()


class Made:
    """An adapter that makes its own audio, with what an adapter may say of itself."""

    source = Source("Made", "MIT", "none", "It makes itself.")
    generated = True
    expected = 4
    disclaimer = "Tones, not feelings."
    classes = ("happy", "sad")

    def __init__(self, root: Path, *, utterances: int) -> None:
        self.root, self.utterances = root, utterances

    def items(self) -> Iterator[Item]:
        (self.root / "audio").mkdir()
        for number, split in zip(range(self.utterances), SPLITS, strict=False):
            soundfile.write(self.root / f"audio/{number}.wav", np.full(160, number / 8), 16_000)
            label, name = self.classes[number % 2], f"audio/{number}.wav"
            yield Item(f"m{number}", label, f"s{number}", audio=name, split=split)
        yield Item("m7", "sad", "s7")
        yield Item("m8", None, "s8", text="hm")
        yield Item("m9", None, "s9", reject="withdrawn")


def test_a_generated_corpus_keeps_its_audio_beside_the_manifest(
    mine: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HERONRY_MINE_ROOT")
    monkeypatch.setattr("features.preparation.load", lambda *_: Made)
    entry = CorpusEntry("mine", "made", options={"utterances": 4})
    prepare("mine", entry, mine.out)
    first = mine.written()
    done = prepare("mine", entry, mine.out)
    assert mine.written() == first  # though the audio has been made anew
    manifest = Manifest.read(mine.out / "utterances")
    assert manifest.generated
    located = manifest.located(mine.out / "utterances")
    assert [Path(str(row.audio)).is_file() for row in located[:4]] == [True] * 4
    assert [row.id for row in located[4:]] == ["m8"]
    assert mine.rejected() == {
        "m7": "it has neither audio nor text",
        "m8": "it has no label",
        "m9": "withdrawn",
    }
    assert (done.card["expected"], done.card["disclaimer"]) == (4, "Tones, not feelings.")
    assert not (mine.out.parents[1] / "cache").exists()  # nothing to remember of such files


PARAMS = """
fusion: none
regime: cached
corpus: mine
seeds: null
train: {}
corpora: {mine: {kind: manifest, allow_rejected: 1, allow_leak: [speaker]}}
backbones: {}
models: {}
"""


def test_the_stage(mine: Corpus, capsys: pytest.CaptureFixture[str]) -> None:
    from stages.prepare.__main__ import main

    mine.four()
    refuse_speaker(mine)
    (mine.root / "1.wav").unlink()
    Path("params.yaml").write_text(PARAMS)
    main("mine")
    said = capsys.readouterr()
    assert said.out == (
        "data/mine: 3 utterances, 0.00 hours, 2 classes, speakers by fold: 1 train, 1 valid, "
        "1 test; 1 rejected\n"
    )
    assert said.err == (
        "  rejected 1: 1.wav: there is no such file below the corpus root\n"
        "  warning: speaker: 1 of 2 occur in more than one split (fold 0), such as "
        "s0 (train, test)\n"
    )
    with pytest.raises(ParamsError, match=r"no entry 'other'; expected one of \['mine'\]"):
        main("other")


def test_entries() -> None:
    assert corpus_entry("ravdess", {}) == CorpusEntry("ravdess", kind="ravdess")
    given = {"kind": "manifest", "allow_leak": ["speaker"], "folds": 3, "file": "x.csv"}
    assert corpus_entry("my-own", given) == CorpusEntry(
        "my-own", kind="manifest", allow_leak=("speaker",), folds=3, options={"file": "x.csv"}
    )


def test_all_problems_of_an_entry_are_listed() -> None:
    given = {"kind": "manifest", "protocol": "random", "fold": 3, "file": 5, "allow_leak": ["age"]}
    listed = "\n".join(corpus_problems("mine", given))
    for line in (
        "corpora.mine.protocol: given 'random'; expected one of 'official', 'speaker_split'",
        "corpora.mine.allow_leak: given ['age']; expected a list, each one of 'speaker'",
        "corpora.mine.fold: given an unknown key; expected one of allow_leak, allow_rejected, "
        "classes, file, folds, kind, protocol, shard_characters, shard_seconds (did you mean "
        "'folds'?)",
        "corpora.mine.file: given 5; expected text",
    ):
        assert line in listed
    with pytest.raises(ParamsError) as caught:
        corpus_entry("mine", given)
    assert str(caught.value) == listed


@pytest.mark.parametrize(
    ("name", "mapping", "message"),
    [
        ("mine", None, "corpora.mine: given None; expected a mapping"),
        ("mine", {}, "corpora.mine.kind: unknown kind 'mine'; expected one of ["),
        ("a.b", {"kind": "manifest"}, "given the name 'a.b'; expected letters"),
        ("../up", {"kind": "manifest"}, "given the name '../up'; expected letters"),
        ("ravdess", {"folds": 0}, "corpora.ravdess.folds: given 0; expected 1 or more"),
        ("ravdess", {"allow_rejected": -1}, "allow_rejected: given -1; expected 0 or more"),
        ("ravdess", {"shard_seconds": 0}, "shard_seconds: given 0; expected a number above 0"),
        ("ravdess", {"root": "/data"}, "corpora.ravdess.root: given an unknown key"),
        ("ravdess", {"folds": True}, "corpora.ravdess.folds: given True; expected an integer"),
    ],
)
def test_wrong_entries(name: str, mapping: Any, message: str) -> None:
    (found,) = corpus_problems(name, mapping)
    assert message in found


@pytest.mark.real_data
@pytest.mark.skipif(not REAL.is_dir(), reason=f"needs the RAVDESS clips in {REAL}")
def test_real_recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERONRY_RAVDESS_ROOT", str(REAL))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    entry = corpus_entry("ravdess", {"protocol": "speaker_split"})
    done = prepare("ravdess", entry, tmp_path / "out")
    assert (done.utterances, done.card["expected"], done.rejected) == (720, 1440, {})
    assert done.hours * 60 == pytest.approx(44, abs=1)
    assert done.card["speakers"] == [{"train": 8, "valid": 2, "test": 2}]
    assert [leak.partition(":")[0] for leak in done.card["leaks"]] == ["sentence"]
    manifest = Manifest.read(tmp_path / "out" / "utterances").located(REAL)
    assert all(Path(str(utterance.audio)).is_file() for utterance in manifest)
