"""`heronry segment`: tables of utterances, and what is left out."""

from __future__ import annotations

import csv
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from features.corpora.manifest import ManifestCorpus
from features.errors import HeronryError, ManifestError, ParamsError
from features.segmentation import voice_activity
from pipeline.command_line.app import app
from tests.conftest import RATE, tone

Rows = list[dict[str, str]]
RTTM = """\
SPEAKER a 1 0.5 1.0 <NA> <NA> S1 <NA> <NA>
SPEAKER a 1 1.2 0.8 <NA> <NA> S2 <NA> <NA>
SPEAKER b 1 0.0 2.0 <NA> <NA> S1 <NA> <NA>
"""


@pytest.fixture
def corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two recordings of 4 s in a folder, and an RTTM file."""
    monkeypatch.chdir(tmp_path)
    for name in ("x/a.wav", "y/b.wav"):
        (tmp_path / name).parent.mkdir()
        soundfile.write(tmp_path / name, tone(200.0, 4.0), RATE)
    (tmp_path / "all.rttm").write_text(RTTM)
    return tmp_path


def call(*words: str) -> str:
    """What a command says; raises what it raises."""
    done = CliRunner().invoke(app, ["segment", *words], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.output


def rows(path: Path) -> Rows:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_rttm_becomes_a_manifest(corpus: Path) -> None:
    said = call("x", "y", "--rttm", "all.rttm", "--out", "manifest.csv")
    assert "utterances: 3, recordings: 2, 0:00:04 in all" in said
    assert "overlap one of another speaker, all kept: 2" in said
    assert "S1 is one speaker in 2 recordings" in said
    assert (corpus / "manifest.csv").read_text() == (
        "id,audio,start,stop,speaker,dialogue,turn\n"
        "x/a_0001,x/a.wav,0.500,1.500,S1,x/a,0\n"
        "x/a_0002,x/a.wav,1.200,2.000,S2,x/a,1\n"
        "y/b_0001,y/b.wav,0.000,2.000,S1,y/b,0\n"
    )
    call("y/*.wav", "x", "--rttm", "all.rttm", "--out", "again.csv")
    other = rows(corpus / "again.csv")
    assert sorted(row["id"] for row in other) == [
        row["id"] for row in rows(corpus / "manifest.csv")
    ]
    assert {path.name for path in corpus.iterdir()} == {
        *("x", "y", "all.rttm", "manifest.csv", "again.csv")
    }


def test_a_corpus_needs_only_labels_and_speakers(corpus: Path) -> None:
    """Without labels the table is refused, and told what it lacks."""
    call("x", "y", "--rttm", "all.rttm", "--out", "manifest.csv")
    with pytest.raises(ManifestError, match="it has no column label, but"):
        list(ManifestCorpus(corpus).items())
    found = rows(corpus / "manifest.csv")
    with (corpus / "manifest.csv").open("w", newline="") as file:
        writer = csv.DictWriter(file, [*found[0], "label"])
        writer.writeheader()
        writer.writerows({**row, "label": "sad"} for row in found)
    items = list(ManifestCorpus(corpus).items())
    assert [(item.id, item.start, item.stop, item.speaker) for item in items] == [
        ("x/a_0001", 0.5, 1.5, "S1"),
        ("x/a_0002", 1.2, 2.0, "S2"),
        ("y/b_0001", 0.0, 2.0, "S1"),
    ]
    assert [(item.dialogue, item.turn) for item in items] == [("x/a", 0), ("x/a", 1), ("y/b", 0)]


def test_what_is_left_out_is_listed_and_the_rest_is_written(corpus: Path) -> None:
    bad = [
        "SPEAKER a 1 3.0 2.0 <NA> <NA> S1 <NA> <NA>",
        "SPEAKER c 1 0.0 2.0 <NA> <NA> S1 <NA> <NA>",
        "SPEAKER a 1 1.0 0.0 <NA> <NA> S1 <NA> <NA>",
        "SPEAKER broken 1 1.0 1.0 <NA> <NA> S1 <NA> <NA>",
        "nonsense",
    ]
    (corpus / "all.rttm").write_text(RTTM + "\n".join(bad))
    (corpus / "x" / "broken.wav").write_bytes(b"RIFF")
    with pytest.raises(ManifestError) as caught:
        call(".", "--rttm", "all.rttm", "--out", "manifest.csv")
    assert len(rows(corpus / "manifest.csv")) == 3
    listed = rows(corpus / "manifest.rejected.csv")
    assert [row["place"] for row in listed] == [
        "x/broken.wav",
        *(f"all.rttm, line {number}" for number in (8, 4, 5, 6)),
    ]
    head, *said = str(caught.value).splitlines()
    assert head.startswith("5 left out, as manifest.rejected.csv lists too")
    assert said == [f"{row['place']}: {row['reason']}" for row in listed]
    assert "is from 3 to 5 s, but a lasts 4.000 s" in said[2]
    (corpus / "all.rttm").write_text(RTTM)
    call("x/a.wav", "y", "--rttm", "all.rttm", "--out", "manifest.csv")
    assert not (corpus / "manifest.rejected.csv").exists()


def test_paths_that_no_table_holds_are_left_out(corpus: Path) -> None:
    for name in (" a.wav", "\udcff.wav", "a\n.wav"):
        (corpus / name).write_bytes((corpus / "x/a.wav").read_bytes())
    with pytest.raises(ManifestError, match=r"its path '\\udcff.wav' fits no table: rename it"):
        call(".", "--rttm", "all.rttm", "--out", "m.csv")
    assert len(rows(corpus / "m.csv")) == len(rows(corpus / "m.rejected.csv")) == 3


@pytest.mark.parametrize(
    ("who", "names"),
    [
        ("given", ["S1", "S2", "S1"]),
        ("local", ["x/a/S1", "x/a/S2", "y/b/S1"]),
        ("recording", ["x/a", "x/a", "y/b"]),
        ("folder", ["x", "x", "y"]),
    ],
)
def test_who_a_speaker_is(corpus: Path, who: str, names: list[str]) -> None:
    call("x", "y", "--rttm", "all.rttm", "--out", "m.csv", "--speakers", who)
    assert [row["speaker"] for row in rows(corpus / "m.csv")] == names


def test_textgrids_are_found_by_the_names_of_recordings(corpus: Path) -> None:
    for name in ("x/a", "y/b"):
        path = corpus / "grids" / f"{name}.TextGrid"
        path.parent.mkdir(parents=True)
        entries = '0 1 "hello there" 1 2 "sil" 2 4 ""'
        path.write_text(
            f'"ooTextFile" "TextGrid" 0 4 <exists> 1 "IntervalTier" "anna" 0 4 3 {entries}'
        )
    call("x", "y", "--textgrid", "grids", "--ignore", "sil", "--out", "m.csv")
    assert [
        (row["audio"], row["stop"], row["speaker"], row["text"]) for row in rows(corpus / "m.csv")
    ] == [
        ("x/a.wav", "1.000", "anna", "hello there"),
        ("y/b.wav", "1.000", "anna", "hello there"),
    ]


def test_a_table_keeps_words_and_labels_and_long_ones_are_cut(corpus: Path) -> None:
    samples = tone(200.0, 4.0)
    samples[round(1.8 * RATE) : round(2.2 * RATE)] = 0
    soundfile.write(corpus / "x" / "a.wav", samples, RATE)
    (corpus / "s.csv").write_text(
        "audio,start,stop,speaker,text,label\nx/a.wav,0,4,S1,,sad\ny/b.wav,0,4,S2,so long,\n"
    )
    said = call("x", "y", "--segments", "s.csv", "--longest", "3", "--out", "m.csv")
    assert "longer than 3 s, divided at their quietest pauses: 1" in said
    assert "longer than 3 s that have words, and stay whole: 1" in said
    assert "no labels" not in said
    first, second, whole = rows(corpus / "m.csv")
    assert float(first["stop"]) == float(second["start"]) == pytest.approx(2.0, abs=0.02)
    assert first["label"] == second["label"] == "sad"
    assert (whole["text"], whole["stop"]) == ("so long", "4.000")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("x --rttm all.rttm --segments s.csv --out m.csv", "expected one of them"),
        ("x --rttm all.rttm --threshold 0.4 --out m.csv", "--threshold is of voice activity"),
        ("x --rttm all.rttm --tier a --out m.csv", "expected --textgrid"),
        ("x --rttm all.rttm --out m.parquet", "ends in .csv"),
        ("x --segments all.rttm --longest 2 --shortest 1 --out m.csv", "four times the shortest"),
        ("x --segments s.csv --out s.csv", "is what is read"),
    ],
)
def test_options_that_contradict_are_refused(corpus: Path, words: str, message: str) -> None:
    (corpus / "s.csv").write_text("audio,start,stop\n")
    with pytest.raises(ParamsError, match=message):
        call(*words.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("z --rttm all.rttm --out m.csv", "there is no z"),
        ("x --rttm none.rttm --out m.csv", "there is no none.rttm"),
        ("x --rttm x/a.wav --out m.csv", "no utterances: m.csv is not written"),
        ("x --rttm all.rttm --out y/m.csv", "not below the folder of y/m.csv"),
    ],
)
def test_nothing_is_written_where_nothing_is_found(corpus: Path, words: str, message: str) -> None:
    with pytest.raises(ManifestError, match=message):
        call(*words.split())
    assert not list(corpus.rglob("m.csv"))


def test_voice_activity_needs_its_package(corpus: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voice_activity, "MODULE", "no_such_package")
    with pytest.raises(HeronryError, match=r"\[vad\]"):
        call("x", "--out", "m.csv")
    assert not (corpus / "m.csv").exists()


@pytest.mark.embedded
@pytest.mark.skipif(find_spec("silero_vad") is None, reason="package silero-vad is not installed")
def test_a_recording_without_speech_has_no_utterances(corpus: Path) -> None:
    soundfile.write(corpus / "x" / "a.wav", np.zeros(RATE), RATE)
    with pytest.raises(ManifestError, match="no utterances"):
        call("x", "--out", "m.csv")
