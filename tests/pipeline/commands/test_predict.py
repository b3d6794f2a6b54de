"""`heronry predict`: what it takes, refuses, writes and resumes."""

from __future__ import annotations

import csv
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import yaml
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner, Result

from features.backbone.entry import backbone_entry
from features.corpus.manifest import Manifest
from features.corpus.utterance import Utterance
from features.files.reading import file_sha256
from features.settings.locations import store_root
from features.transcription.settings import Transcription
from pipeline.command_line.app import app
from pipeline.predict.parts import Parts, divided
from pipeline.predict.predictor import CHANGED
from pipeline.predict.recordings import Given, Recording
from pipeline.predict.rows import rows_of
from pipeline.runtime.resume import PREDICTIONS
from tests.conftest import RATE, ManifestMaker, tone
from tests.contracts.checkpoints import text_encoder
from tests.contracts.test_predict import check_equal, predicted
from tests.support.models.small_whisper import write_whisper
from tests.support.paths import ROOT
from tests.support.runs.random_run import CLASSES, RandomRun

SECONDS = [0.9, 0.5, 1.3, 0.7]


@pytest.fixture(scope="module")
def words(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    options = text_encoder.VARIANTS["bert"](tmp_path_factory.mktemp("words") / "bert")
    return {"kind": "text_encoder", "version": 2, **options}


class Made:
    """Writes runs with a backbone of words and one of tones, in the current folder."""

    def __init__(self, manifest: Any, words: dict[str, Any], store: Path) -> None:
        self.manifest, self.store = manifest, store
        self.entries = {
            "text": backbone_entry("words", words),
            "speech": backbone_entry("voice", {"kind": "tone", "version": 3}),
        }

    def run(self, kind: str = "concat", *slots: str, **more: Any) -> RandomRun:
        entries = {slot: self.entries[slot] for slot in slots or self.entries}
        return RandomRun(Path.cwd(), self.manifest, entries, kind, **more).write(self.store)


@pytest.fixture
def made(
    words: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    make_manifest: ManifestMaker,
    private_store: Path,
) -> Made:
    monkeypatch.chdir(tmp_path)
    return Made(make_manifest(SECONDS), words, private_store)


def predict(*words: object) -> Result:
    return CliRunner().invoke(app, ["predict", *map(str, words)])


def refusal(*words: object) -> str:
    result = predict(*words)
    assert result.exit_code == 1
    return f"{result.output}{result.exception}"


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_files_hold_the_same_rows(made: Made, tmp_path: Path) -> None:
    run = made.run(seeds=(0, 1))
    table = run.table(tmp_path / "new.csv", "text", "speaker", "seconds")
    files = {name: tmp_path / f"out.{name}" for name in ("csv", "jsonl", "parquet")}
    options = [word for name, path in files.items() for word in (f"--{name}", path)]
    result = predict(run.path, table, *options)
    assert result.exit_code == 0, result.output
    assert "the columns ['seconds'] are not read" in result.output
    assert "mean of 2 models, seed_0/fold_0 (temperature" in result.output
    rows = lines(files["jsonl"])
    assert [row["id"] for row in rows] == ["u0", "u1", "u2", "u3"]
    assert [row["speaker"] for row in rows] == ["s0", "s1", "s0", "s1"]
    assert pq.read_table(files["parquet"]).to_pylist() == rows
    with files["csv"].open() as file:
        cells = list(csv.DictReader(file))
    for row, cell in zip(rows, cells, strict=True):
        assert list(row) == list(cell)
        shares = [row[f"p_{name}"] for name in CLASSES]
        assert sum(shares) == pytest.approx(1)
        assert row["prediction"] == cell["prediction"] == CLASSES[int(np.argmax(shares))]
        assert float(cell["p_sad"]) == pytest.approx(row["p_sad"], abs=1e-8)
        assert cell["models"] == "seed_0/fold_0 seed_1/fold_0"
        assert len(row["temperatures"]) == 2
        assert (row["start"], row["error"], cell["error"]) == (0.0, None, "")


def test_seeds_are_averaged_and_one_can_be_named(made: Made) -> None:
    run = made.run(seeds=(0, 1))
    whole = predicted(run)
    check_equal(run, whole)
    first, second = (predicted(run, "--seed", str(seed)) for seed in (0, 1))
    for id, row in whole.items():
        mean = (first[id]["p_sad"] + second[id]["p_sad"]) / 2
        assert row["p_sad"] == pytest.approx(mean, abs=1e-9)
        assert first[id]["models"] == ["seed_0/fold_0"]
    table = run.folder / "new.csv"
    named = run.folder / "named.jsonl"
    assert predict(run.path / "seed_1/fold_0", table, "--jsonl", named).exit_code == 0
    assert {row["id"]: row for row in lines(named)} == second


def test_other_targets_are_predicted_on_their_scales(made: Made) -> None:
    run = made.run(tasks=("votes", "attributes", "gender"))
    rows = predicted(run)
    check_equal(run, rows)
    for row in rows.values():
        assert 1 <= row["v_arousal"] <= 5
        assert row["g_female"] + row["g_male"] == pytest.approx(1)
        assert len(row["temperatures"]) == 1  # of the votes
        assert 1 <= row["without_text_v_valence"] <= 5
    shown = predict(run.path, run.folder / "new.csv", "--without-each").output
    assert "arousal without text" in shown.splitlines()[0]


def test_what_is_missing_goes_the_trained_way_or_is_refused(made: Made, tmp_path: Path) -> None:
    heron, concat = made.run("heron"), made.run("concat")
    full = predicted(heron)
    folder = tmp_path / "audio"
    out = tmp_path / "out.jsonl"
    assert predict(heron.path, folder, "--jsonl", out).exit_code == 0
    for row, (id, own) in zip(lines(out), full.items(), strict=True):
        assert Path(row["audio"]).stem == id
        assert row["missing"] == ["text"]
        assert row["without_speech"] is None  # nothing is left
        for name in CLASSES:
            assert row[f"p_{name}"] == pytest.approx(own[f"without_text_p_{name}"], abs=1e-5)
    said = refusal(concat.path, folder)
    assert "4 of 4 rows could not be predicted" in said
    assert "it has no text, which the slot text needs: give its words (--text" in said
    clip = folder / "u1.wav"
    assert predict(concat.path, clip, "--text", "this is utterance number 1").exit_code == 0
    table = tmp_path / "words.csv"
    table.write_text("audio,text\naudio/u0.wav,this is\naudio/u2.wav,utterance\n")
    assert "2 of 4 rows" in refusal(concat.path, folder, "--transcripts", table)


def test_a_table_may_say_more_than_a_recording_has(made: Made, tmp_path: Path) -> None:
    run = made.run("concat")
    table, words, out = (tmp_path / name for name in ("new.csv", "words.csv", "out.jsonl"))
    table.write_text("id,audio,text,stop\na,audio/u0.wav,this,9\nb,audio/u1.wav,this,0.505\n")
    assert predict(run.path, table, "--transcripts", table, "--jsonl", out).exit_code == 0
    own = lines(out)
    notices = [[each for each in row["notices"] if "stop" in each] for row in own]
    assert notices == [["its stop, 9.0 s, lies behind the end of the audio"], []]  # rounded up
    assert [row["stop"] for row in own] == SECONDS[:2]
    words.write_text("id,text\na,\nb,utterance\n")  # an empty cell takes no text away
    assert predict(run.path, table, "--transcripts", words, "--jsonl", out).exit_code == 0
    assert lines(out)[0] == own[0]
    assert lines(out)[1] != own[1]


def test_words_can_be_predicted_without_a_recording(made: Made, tmp_path: Path) -> None:
    run = made.run("concat", "text")
    table, alone, out = (tmp_path / name for name in ("new.csv", "alone.jsonl", "out.jsonl"))
    table.write_text("id,text\ntext,this is\n")
    assert predict(run.path, "--text", "this is", "--jsonl", alone).exit_code == 0
    assert predict(run.path, table, "--jsonl", out).exit_code == 0
    assert lines(alone) == lines(out)
    assert "it has no audio" in refusal(made.run("concat").path, "--text", "this is")


def test_recognised_words_are_read_beside_a_reference(
    made: Made, words: dict[str, Any], tmp_path: Path
) -> None:
    heard = {**words, "kind": "asr_text", "pooling": "mean"}
    table, out = tmp_path / "new.csv", tmp_path / "out.jsonl"
    table.write_text("audio,text\naudio/u0.wav,this is\n")
    made.entries = {"text": backbone_entry("heard", {**heard, "where": "missing"})}
    assert predict(made.run().path, table).exit_code == 0
    made.entries = {"text": backbone_entry("heard", heard)}
    run = made.run()
    assert "it has no asr, which the slot text needs" in refusal(run.path, table)
    params = yaml.safe_load((tmp_path / "params.yaml").read_text())
    params["transcribe"] = vars(Transcription()) | write_whisper(tmp_path / "whisper")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    assert predict(run.path, table, "--transcribe", "--jsonl", out).exit_code == 0
    assert lines(out)[0]["asr"]


def test_a_file_name_of_other_bytes_fails_alone(made: Made, tmp_path: Path) -> None:
    run, out = made.run("concat", "speech"), tmp_path / "out"
    (tmp_path / "audio/u0.wav").rename(os.fsdecode(bytes(tmp_path / "audio") + b"/\xff.wav"))
    said = refusal(run.path, tmp_path / "audio", "--csv", out, "--jsonl", tmp_path / "lines")
    assert "1 of 4 rows could not be predicted" in said
    assert "\\udcff.wav" in out.read_text()
    assert "\\udcff.wav" in refusal(run.path, tmp_path / "audio", "--by", "audio")


def test_a_file_that_changes_meanwhile_fails_alone(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = made.run("concat", "speech")
    (tmp_path / "audio/u0.wav").unlink()
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    assert predict(run.path, tmp_path / "audio", "--jsonl", whole).exit_code == 0

    def later(*given: Any) -> Parts:
        soundfile.write(tmp_path / "audio/u1.wav", tone(200, 0.6), RATE)
        (tmp_path / "audio/u2.wav").unlink()
        return divided(*given)

    monkeypatch.setattr("pipeline.commands.predict.divided", later)
    said = refusal(run.path, tmp_path / "audio", "--jsonl", out)
    assert "2 of 3 rows could not be predicted" in said
    assert said.count(CHANGED) == 2
    assert lines(out)[2]["p_sad"] == pytest.approx(lines(whole)[2]["p_sad"], abs=1e-6)


def test_a_clip_that_cannot_be_read_fails_alone(made: Made, tmp_path: Path) -> None:
    run = made.run("concat", "speech")
    (tmp_path / "audio/notes.mp3").write_text("not audio")
    out = tmp_path / "out.csv"
    said = refusal(run.path, tmp_path / "audio", "--csv", out)
    assert "1 of 5 rows could not be predicted" in said
    with out.open() as file:
        rows = {Path(row["audio"]).name: row for row in csv.DictReader(file)}
    assert rows["notes.mp3"]["error"] == "the audio cannot be decoded (Format not recognised)"
    assert all(row["prediction"] for name, row in rows.items() if name != "notes.mp3")


def test_other_weights_are_refused_with_the_differences(made: Made, tmp_path: Path) -> None:
    run = made.run("concat", "text")
    weights = tmp_path / "others"
    text_encoder.write(weights, **{**text_encoder.SIZES, "intermediate_size": 64})
    run.params(words={"kind": "text_encoder", "version": 2, "checkpoint": str(weights)})
    (tmp_path / "bert").symlink_to(weights)
    os.environ["HERONRY_CHECKPOINTS"] = str(tmp_path)
    try:
        said = refusal(run.path, tmp_path / "audio")
    finally:
        del os.environ["HERONRY_CHECKPOINTS"]
    assert "the text slot: backbone words is not the one that the run was trained on" in said
    assert "weights_sha256: recorded" in said


def test_a_backbone_that_params_yaml_lacks_is_made_of_the_record(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: dict[str, Any]
) -> None:
    run = made.run("concat")
    before = predicted(run)
    (tmp_path / "params.yaml").unlink()
    monkeypatch.setenv("HERONRY_CHECKPOINTS", str(Path(words["checkpoint"]).parent))
    assert predicted(run) == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere", "audio"], r"nowhere is no run folder: it has no run.json; expected one of"),
        (["RUN", "audio/none.wav"], "there is no audio/none.wav"),
        (["RUN", "data"], "no recordings are below the folder data"),
        (["RUN", "none/*.wav"], "nothing matches none/"),
        (["RUN", "new.csv", "audio"], "given the table new.csv beside 1 more"),
        (["RUN", "none.csv"], "there is no table none.csv"),
        (["RUN"], "given nothing to predict; expected recordings, a table, or --text"),
        (["RUN", "bad.csv"], "id 'a' in line 2 and line 3; expected each id once"),
        (["RUN", "audio", "--text", "x"], "the words of one recording for 4"),
        (["RUN", "audio/u0.wav", "--text", "x", "--transcripts", "new.csv"], "one of them"),
        (["RUN", "audio", "--transcripts", "new.csv"], "has no words"),
        (["RUN", "audio", "--transcripts", "other.csv"], r"ids of no recording .* 1 \('b'\)"),
        (["RUN", "audio", "--seed", "7"], r"has no seed 7; expected .* \[0\]"),
        (["RUN/seed_0/fold_0", "audio", "--seed", "0"], "--seed or --fold beside"),
        (["RUN", "audio", "--csv", "audio"], "--csv audio: cannot write it"),
        (["RUN", "audio", "--csv", "new.csv/x"], "--csv new.csv/x: cannot write it"),
        (["RUN", "audio", "--parquet", "x.csv"], "expected x.parquet, or --csv x.csv"),
        (["RUN", "audio", "--csv", "x", "--jsonl", "x"], "one file for --csv and --jsonl"),
        (["RUN", "audio", "--window", "0.5"], "expected 0 .* or at least 1"),
        (["RUN", "audio", "--devices", "tpu9"], "--devices is 'tpu9'"),
    ],
)
def test_refusals(
    refusing: RandomRun, monkeypatch: pytest.MonkeyPatch, words: Sequence[str], message: str
) -> None:
    monkeypatch.chdir(refusing.folder)
    said = refusal(*(word.replace("RUN", str(refusing.path)) for word in words))
    assert re.search(message, said), said


@pytest.fixture(scope="module")
def refusing(tmp_path_factory: pytest.TempPathFactory) -> RandomRun:
    """A project that is made once, since nothing of it is changed."""
    folder, before = tmp_path_factory.mktemp("refusing"), Path.cwd()
    (folder / "audio").mkdir()
    (folder / "data").mkdir()
    rows = []
    for number, seconds in enumerate(SECONDS):
        path = folder / f"audio/u{number}.wav"
        soundfile.write(path, tone(100 + 40 * number, seconds), RATE)
        rows.append(Utterance(f"u{number}", str(path), file_sha256(path), seconds=seconds))
    entry = backbone_entry("voice", {"kind": "tone", "version": 3})
    os.chdir(folder)
    try:
        run = RandomRun(folder, Manifest("tones", tuple(rows)), {"speech": entry})
        run.write(folder / "store").table(folder / "new.csv")
    finally:
        os.chdir(before)
    (folder / "bad.csv").write_text("id,audio\na,audio/u0.wav\na,audio/u1.wav\n")
    (folder / "other.csv").write_text("id,text\nb,words\n")
    return run


@given(st.floats(0.1, 500), st.just(0.0) | st.floats(1, 60), st.booleans())
def test_pieces_are_even_and_cover_a_recording(seconds: float, window: float, known: bool) -> None:
    recording = Recording("a", Path("a.wav"), text="words" if known else None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.predict.rows._measured", lambda _: ("ab", seconds))
        (rows,) = rows_of(Given((recording,)), window=window, dialogues=False)
    edges = [row.start for row in rows] + [rows[-1].stop]
    assert (edges[0], edges[-1]) == (0.0, seconds)
    assert [row.stop for row in rows] == edges[1:]
    lengths = [row.seconds for row in rows]
    assert max(lengths) == pytest.approx(min(lengths))
    if known or not window:
        assert len(rows) == 1
    else:
        assert max(lengths) <= window * 1.001 + 1e-6
        assert len(rows) == 1 or max(lengths) > window / 2.1
    assert len({row.id for row in rows}) == len(rows)


@pytest.mark.slow
def test_a_killed_command_goes_on_and_ends_the_same_as_on_two_devices(
    made: Made, tmp_path: Path
) -> None:
    """Three parts of ten minutes; kill -9 after the first."""
    run = made.run("concat", "speech")
    long = tmp_path / "long.flac"
    with soundfile.SoundFile(long, "w", RATE, 1) as file:
        for number in range(13):
            file.write(tone(100 + 20 * number, 100.0))
    words = [sys.executable, "-m", "pipeline", "predict", str(run.path), str(long), "--csv"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [*words, "killed.csv"], env=environment, cwd=tmp_path, stderr=subprocess.PIPE
    )
    done: list[Path] = []
    while process.poll() is None and not any(path.stat().st_size for path in done):
        done = list((store_root() / PREDICTIONS).glob("*/done.jsonl"))
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert not (tmp_path / "killed.csv").exists()
    again = subprocess.run(
        [*words, "killed.csv"], env=environment, cwd=tmp_path, capture_output=True, text=True
    )
    assert again.returncode == 0, again.stderr
    assert "parts are done" in again.stderr
    assert predict(run.path, long, "--csv", tmp_path / "whole.csv").exit_code == 0
    assert (tmp_path / "killed.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
    assert not list((store_root() / PREDICTIONS).glob("*/done.jsonl"))
    both = predict(run.path, long, "--csv", tmp_path / "both.csv", "--devices", "cpu,cpu")
    assert both.exit_code == 0, both.output
    assert (tmp_path / "both.csv").read_bytes() == (tmp_path / "whole.csv").read_bytes()
