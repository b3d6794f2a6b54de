"""The corpus card and the stage that writes it: contents, and differences from published counts."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from features.corpus.adapter import Item, Published, Source
from features.corpus.entry import CorpusEntry, corpus_entry
from features.corpus.manifest import Manifest, read_labels
from features.corpus.prepare import prepare
from features.errors import ParamsError
from features.files.reading import file_sha256
from tests.support.corpora.small_corpus import SPLITS, SmallCorpus
from tests.support.paths import SHARED

REAL = SHARED / "data" / "ravdess"


LACKING = [
    "valid has no utterance of the class 'sad': the epoch that is kept is chosen without it",
    "test has no utterance of the class 'happy': it is not tested",
]


def test_the_card(mine: SmallCorpus) -> None:
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
        "scripted": False,
        "variant": None,
        "label_map": None,
        "published": None,
        "differences": [],
        "classes": ["happy", "sad"],
        "protocol": "official",
        "split_seed": 0,
        "folds": 1,
        # of the lines that docs/design.md describes, by sha256sum
        "splits_sha256": hashlib.sha256(b"0\ttrain\n1\ttrain\n2\tvalid\n3\ttest\n").hexdigest(),
        "labels_sha256": file_sha256(mine.out / "labels" / "labels.jsonl"),
        "tables": {"manifest.csv": file_sha256(mine.root / "manifest.csv")},
        "utterances": 4,
        "files": 4,
        "sample_rates_hz": {"16000": 4},
        "channels": {"1": 4},
        "durations": {"total": 1.0, "min": 0.25, "median": 0.25, "max": 0.25},
        "seconds": [{"train": 0.5, "valid": 0.25, "test": 0.25}],
        "hours": [{"train": 0.0001, "valid": 0.0001, "test": 0.0001}],
        "rejected": 0,
        "rejected_reasons": {},
        "rejected_ids": {},
        "noticed": 0,
        "noticed_reasons": {},
        "noticed_ids": {},
        "similar_classes": [],
        "lacking": [{"valid": ["sad"], "test": ["happy"]}],
        "contradictions": 0,
        "warnings": LACKING,
        "allow_leak": [],
        "leaks": [],
        "leak_verdict": [],
        "speakers": [{"train": 2, "valid": 1, "test": 1}],
        "genders": [{"train": {"unknown": 2}, "valid": {"unknown": 1}, "test": {"unknown": 1}}],
        "counts": [
            {
                "train": {"happy": 1, "sad": 1},
                "valid": {"happy": 1, "sad": 0},
                "test": {"happy": 0, "sad": 1},
            }
        ],
    }


class Made:
    """An adapter that makes its own audio, with what an adapter may say of itself."""

    source = Source("Made", "MIT", "none", "It makes itself.")
    generated = True
    published = Published(5, {"label": {"happy": 3, "sad": 2}}, "a paper", ("one was lost",))
    variant, label_map = "two", {"hap": "happy", "sad": "sad", "xxx": None}
    scripted = True
    disclaimer = "Tones, not feelings."
    classes = ("happy", "sad")

    def __init__(self, root: Path, *, utterances: int) -> None:
        self.root, self.utterances = root, utterances

    def items(self) -> Iterator[Item]:
        (self.root / "audio").mkdir()
        for number, split in zip(range(self.utterances), SPLITS, strict=False):
            soundfile.write(self.root / f"audio/{number}.wav", np.full(160, number / 8), 16_000)
            label, name = self.classes[number % 2], f"audio/{number}.wav"
            yield Item(f"m{number}", label, f"s{number}", audio=name, split=split, sentence="hm")
        yield Item("m7", "sad", "s7")
        yield Item("m8", None, "s8", text="hm")
        yield Item("m9", None, "s9", excluded="withdrawn")


def test_a_generated_corpus_keeps_its_audio_beside_the_manifest(
    mine: SmallCorpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("HERONRY_MINE_ROOT")
    monkeypatch.setattr("features.corpus.entry.load", lambda *_: Made)
    entry = CorpusEntry("mine", "made", allow_rejected=1, options={"utterances": 4})
    prepare(entry, mine.out)
    first = mine.written()
    done = prepare(entry, mine.out)
    assert mine.written() == first  # though the audio was made again
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
    check_made(done.card)
    assert not (mine.out.parents[1] / "cache").exists()  # nothing to remember of such files


def check_made(card: Mapping[str, Any]) -> None:
    """Of the five that were published three have other fates, and all say the same sentence."""
    assert card["disclaimer"] == "Tones, not feelings."
    assert (card["variant"], card["scripted"]) == ("two", True)
    assert card["label_map"] == {"hap": "happy", "sad": "sad", "xxx": None}
    assert card["published"] == {
        "utterances": 5,
        "by": {"label": {"happy": 3, "sad": 2}},
        "source": "a paper",
        "notes": ["one was lost"],
    }
    assert card["differences"] == ["partial copy: 4 of 5"]
    assert card["leak_verdict"] == [
        {
            "kind": "sentence",
            "count": 1,
            "total": 1,
            "folds": [0],
            "examples": ["hm (train, valid, test)"],
        }
    ]
    (line,) = card["leaks"]
    assert line == (
        "sentence: 1 of 1 occur in more than one split (fold 0), such as hm (train, valid, test): "
        "all speakers read the same few, so that a model of the text alone must sit at chance"
    )


def test_text_alone_needs_no_audio(mine: SmallCorpus) -> None:
    mine.table(*(f",hm,,,{'ab'[n % 2]},s{n},,{split},u{n}" for n, split in enumerate(SPLITS)))
    done = mine.prepare()
    assert (done.hours, done.utterances) == (0.0, 4)
    assert (done.card["durations"], done.card["files"]) == (None, 0)
    assert read_labels(mine.out / "labels")[0].seconds is None
    assert Manifest.read(mine.out / "utterances")[0].audio_content is None


def test_a_reason_does_not_name_the_file_it_is_about(mine: SmallCorpus) -> None:
    mine.four()
    mine.table(*mine.rows(), *(f"x {n}.wav,,,,sad,s1,,train," for n in "abc"))
    card = mine.prepare(allow_rejected=3).card
    assert card["rejected_reasons"] == {"there is no such file below the corpus root": 3}


def test_rates_and_channels_are_those_of_the_files(mine: SmallCorpus) -> None:
    mine.four()
    soundfile.write(mine.root / "3.wav", np.full((4_000, 2), 0.1), 8_000)
    card = mine.prepare().card
    assert card["sample_rates_hz"] == {"8000": 1, "16000": 3}
    assert card["channels"] == {"1": 3, "2": 1}
    assert card["durations"] == {"total": 1.25, "min": 0.25, "median": 0.25, "max": 0.5}


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


def test_the_stage(mine: SmallCorpus, capsys: pytest.CaptureFixture[str]) -> None:
    from stages.prepare.__main__ import main

    mine.four()
    mine.table(*(row.replace("s3", "s0") for row in mine.rows()))
    (mine.root / "1.wav").unlink()
    Path("params.yaml").write_text(PARAMS)
    main("mine")
    said = capsys.readouterr()
    assert said.out == (
        "data/mine: 3 utterances, 0.00 hours, 2 classes, speakers by fold: 1 train, 1 valid, "
        "1 test; 1 rejected, 0 noticed\n"
        "classes: 'happy', 'sad'\n"
    )
    assert said.err == (
        "  rejected 1: 1.wav: there is no such file below the corpus root\n"
        "  warning: one utterance alone has the class 'sad': it cannot be both learnt and tested\n"
        "  warning: train has no utterance of the class 'sad': a model cannot learn it, and what "
        "is tested of it counts as wrong\n"
        f"  warning: {LACKING[0]}\n"
        f"  warning: {LACKING[1]}\n"
        "  warning: speaker: 1 of 2 occur in more than one split (fold 0), such as "
        "s0 (train, test)\n"
    )
    with pytest.raises(ParamsError, match=r"no entry 'other'; expected one of \['mine'\]"):
        main("other")


@pytest.mark.real_data
@pytest.mark.skipif(not REAL.is_dir(), reason=f"needs the RAVDESS clips in {REAL}")
def test_real_recordings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERONRY_RAVDESS_ROOT", str(REAL))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    entry = corpus_entry("ravdess", {"protocol": "speaker_split"})
    done = prepare(entry, tmp_path / "out")
    assert (done.utterances, done.card["scripted"], done.rejected) == (720, True, {})
    assert done.card["differences"] == ["partial copy: 720 of 1440"]
    assert done.card["genders"][0]["test"] == {"female": 1, "male": 1}
    assert done.hours * 60 == pytest.approx(44, abs=1)
    assert done.card["speakers"] == [{"train": 8, "valid": 2, "test": 2}]
    assert [leak.partition(":")[0] for leak in done.card["leaks"]] == ["sentence"]
    manifest = Manifest.read(tmp_path / "out" / "utterances").located(REAL)
    assert all(Path(str(utterance.audio)).is_file() for utterance in manifest)
