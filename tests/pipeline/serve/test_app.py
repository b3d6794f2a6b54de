"""Answers are the records of `heronry predict`; clips are windowed, drawn, and forgotten."""

from __future__ import annotations

import contextlib
import io
import socket
import tempfile
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

import pipeline
from features.audio.pitch import bin_to_hz
from features.audio.read import read_audio
from pipeline.command_line.app import app
from pipeline.serve.answers import Answer, Answerer, Question
from pipeline.serve.batches import Batcher
from tests.conftest import RATE, tone
from tests.pipeline.serve.conftest import (
    HEARD,
    Builder,
    FakeRecogniser,
    Server,
    inside,
    served,
    write_tone,
)


def check_equal(
    found: list[dict[str, Any]], expected: list[dict[str, Any]], tolerance: float = 1e-5
) -> None:
    """Equal but for what says where a file is, and for the column of recognised words."""
    assert len(found) == len(expected)
    for row, other in zip(found, expected, strict=True):
        assert [name for name in row if name != "asr"] == list(other)
        for name, value in other.items():
            if name not in ("id", "audio"):
                close = pytest.approx(value, abs=tolerance) if isinstance(value, float) else value
                assert row[name] == close, name


@pytest.mark.parametrize("text", [None, "why would you say that"])
def test_a_clip_has_the_answer_of_predict(server: Server, clip: Path, text: str | None) -> None:
    fields = {} if text is None else {"text": text}
    found = server.predict(clip, **fields)
    check_equal(found["rows"], server.model.predict([clip], texts=[text]))
    assert [row["id"] for row in found["rows"]] == ["clip"]
    assert found["rows"][0]["missing"] == ([] if text else ["text"])


def test_an_exported_folder_has_the_answer_of_its_run(
    server: Server, clip: Path, tmp_path: Path
) -> None:
    """Elsewhere, as somebody has it whom the folder was given."""
    run = server.model.run.path
    with inside(run.parents[3]):
        result = CliRunner().invoke(app, ["export", str(run), str(tmp_path / "exported")])
        assert result.exit_code == 0, f"{result.output}{result.exception}"
        with contextlib.chdir(tmp_path):
            model = pipeline.load_run(tmp_path / "exported")
    with served(model) as handed:
        for text in (None, "so sad"):
            fields = {} if text is None else {"text": text}
            found = handed.predict(clip, **fields)["rows"]
            check_equal(found, server.model.predict([clip], texts=[text]), 1e-6)
        described = (each.client.get("api/model").json() for each in (handed, server))
        assert next(described) == next(described)


def test_words_alone(server: Server) -> None:
    found = server.predict(text="so sad")
    check_equal(found["rows"], server.model.predict([None], texts=["so sad"]))
    assert (found["rows"][0]["id"], found["clip"]) == ("text", None)


def test_recognised_words_stand_for_typed_ones(server: Server, clip: Path) -> None:
    heard = server.predict(clip, recognise="true")["rows"]
    assert [row["asr"] for row in heard] == [HEARD]
    check_equal(heard, server.model.predict([clip], texts=[HEARD]))
    typed = server.predict(clip, recognise="true", text="well")["rows"]
    assert [row["asr"] for row in typed] == [None]


def test_a_long_clip_has_a_row_a_window(server: Server, tmp_path: Path) -> None:
    path = write_tone(tmp_path / "long.wav", 4.5)
    found = server.predict(path, window="2")
    check_equal(found["rows"], server.model.predict([path], window=2))
    spans = [(row["start"], row["stop"]) for row in found["rows"]]
    assert spans == [(0.0, 1.5), (1.5, 3.0), (3.0, 4.5)]
    assert [row["id"] for row in found["rows"]][1] == "clip#1.50-3.00"
    assert len(server.predict(path, window="2", text="known")["rows"]) == 1


def test_asked_together_as_alone(server: Server, tmp_path: Path) -> None:
    paths = [write_tone(tmp_path / f"{n}.wav", 0.5 + 0.3 * n, 90 + 60 * n) for n in range(6)]
    alone = [server.predict(path)["rows"] for path in paths]
    with ThreadPoolExecutor(6) as pool:
        together = [each["rows"] for each in pool.map(server.predict, paths)]
    for found, expected in zip(together, alone, strict=True):
        check_equal(found, [{k: v for k, v in row.items() if k != "asr"} for row in expected])


def test_a_clip_is_drawn(server: Server, clip: Path) -> None:
    drawn = server.predict(clip)["clip"]
    samples = read_audio(clip)
    assert drawn["seconds"] == 1.5
    assert max(drawn["highs"]) == pytest.approx(samples.max(), abs=1e-4)
    assert min(drawn["lows"]) == pytest.approx(samples.min(), abs=1e-4)
    pitch = drawn["pitch"]
    track = np.array(pitch["tracks"][0])
    hz = bin_to_hz(track[track > 0], bins=pitch["bins"], f_min=pitch["f_min"], f_max=pitch["f_max"])
    assert pitch["of"] == ""
    assert np.median(hz) == pytest.approx(150, rel=0.02)


def test_the_bins_that_a_model_reads_are_shown(build: Builder, tmp_path: Path) -> None:
    """Of each window, beginning where it does."""
    model = build("gat", {"speech": "voice", "prosody": "pitch"})
    path = write_tone(tmp_path / "long.wav", 3.0, 200.0)
    (answer,) = Answerer(model)([Question(path, 3.0, None, None, False, 1.5)])
    assert [row["error"] for row in answer.rows] == [None, None]
    pitch = answer.pitch
    assert pitch is not None
    assert (pitch.of, pitch.bins, pitch.starts) == ("prosody", 32, [0.0, 1.5])
    assert (pitch.f_min, pitch.f_max, pitch.hop_seconds) == (60, 1100, 0.02)
    middle = np.array([int(np.median(track)) for track in pitch.tracks])
    hz = bin_to_hz(middle, bins=32, f_min=pitch.f_min, f_max=pitch.f_max)
    assert hz == pytest.approx([200, 200], rel=0.1)


def test_what_is_lacking_is_said_to_a_visitor(build: Builder, clip: Path) -> None:
    """Without options of the command, and without how another model would be trained."""
    model = build("concat", {"text": "words", "speech": "voice"})
    silent = Question(clip, 1.5, None, None, False, 30.0)
    words = Question(None, 0.0, "so sad", None, False, 30.0)
    recogniser: Any = FakeRecogniser()
    errors = [
        answer.rows[0]["error"]
        for answerer in (Answerer(model), Answerer(model, recogniser))
        for answer in answerer([silent, words])
    ]
    without, alone = (
        "it has no text, which the slot text needs: type its words",
        "it has no audio, ",
    )
    alone += "which the slot speech needs: choose or record a clip"
    assert errors == [without, alone, f"{without}, or have them recognised", alone]


def test_clips_of_strangers_are_no_conversation(build: Builder, tmp_path: Path) -> None:
    """A model over dialogues answers each client as if it were alone."""
    answerer = Answerer(build("lpgnet", {"speech": "mean"}))
    paths = [write_tone(tmp_path / f"{n}.wav", 1.0, 100 + 90 * n) for n in range(3)]
    questions = [Question(path, 1.0, None, None, False, 30.0) for path in paths]
    together = [each.rows for each in answerer(questions)]
    for rows, question in zip(together, questions, strict=True):
        assert rows[0]["error"] is None
        check_equal(rows, answerer([question])[0].rows)


def test_a_window_that_fails_has_its_reason_and_no_path(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "clip.wav"
    samples = tone(150.0, 1.0)
    samples[8000] = np.nan
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    response = server.client.post("api/predict", files={"audio": path.read_bytes()})
    (row,) = response.json()["rows"]
    assert "finite" in row["error"]
    assert tempfile.gettempdir() not in response.text
    assert "heronry" not in response.text


def test_nothing_of_a_clip_is_left(server: Server, clip: Path) -> None:
    server.predict(clip)
    (folder,) = server.scratch.iterdir()
    assert [*folder.iterdir()] == []


def test_one_that_leaves_makes_room_and_is_not_computed(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[str | None] = []
    began, waits, go = threading.Event(), threading.Event(), threading.Event()
    answer, ask = Answerer.__call__, Batcher.ask

    def slow(self: Answerer, questions: Sequence[Question]) -> list[Answer]:
        computed.extend(each.text for each in questions)
        began.set()
        assert go.wait(30)
        return answer(self, questions)

    def asks(self: Batcher[Question, Answer], question: Question) -> Future[Answer]:
        future = ask(self, question)
        if question.text == "second":
            waits.set()
        return future

    monkeypatch.setattr(Answerer, "__call__", slow)
    monkeypatch.setattr(Batcher, "ask", asks)
    url = httpx.URL(server.url)
    with ThreadPoolExecutor() as pool:
        first = pool.submit(server.predict, text="first")
        assert began.wait(30)
        with socket.create_connection((url.host, url.port)) as connection:
            connection.sendall(
                b"POST /api/predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 11\r\n"
                b"Content-Type: application/x-www-form-urlencoded\r\n\r\ntext=second"
            )
            assert waits.wait(30)
            assert server.gate.inside == 2
        until = time.monotonic() + 30
        while server.gate.inside == 2 and time.monotonic() < until:
            time.sleep(0.01)
        assert server.gate.inside == 1
        go.set()
        assert first.result()["rows"][0]["error"] is None
    server.predict(text="third")
    assert computed == ["first", "third"]


SILENCE = np.zeros(RATE * 11, np.float32)
TAG = b"ID3\3\0\0\0\0\1\2" + bytes(130)  # of two times 64, and 2 more bytes


def encoded(samples: Any, rate: int, kind: str) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=kind)
    return file.getvalue()


REFUSED = {
    "no audio": (b"hello, this is no audio", {}, 415, "another format"),
    "empty": (b"", {}, 415, "another format"),
    "another container": (b"RIFF\0\0\0\0AVI ", {}, 422, ""),
    "another format behind a tag": (
        TAG + encoded(SILENCE, RATE, "AIFF"),
        {},
        415,
        "another format",
    ),
    "a tag without an end": (TAG[:9], {}, 415, "another format"),
    "many samples in few bytes": (
        encoded(np.zeros((250_000, 8)), 192_000, "FLAC"),
        {},
        413,
        "8 channels of 192000 Hz",
    ),
    "nothing": (None, {}, 422, "neither a clip nor words"),
    "window": (None, {"text": "a", "window": "nan"}, 422, "window"),
    "long window": (None, {"text": "a", "window": "31"}, 422, "window"),
    "many words": (None, {"text": "a" * 2001}, 422, "text"),
    "a word as a clip": (None, {"audio": "https://example.org/a.wav"}, 422, "audio"),
    "large": (b"RIFF" + bytes(600_000), {}, 413, "too many bytes"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(server: Server, name: str) -> None:
    audio, fields, status, problem = REFUSED[name]
    files = None if audio is None else {"audio": ("a.wav", audio)}
    response = server.client.post("api/predict", files=files, data=fields)
    assert response.status_code == status, response.text
    assert list(response.json()) == ["problem", "expected", "remedy"]
    assert problem in response.json()["problem"]


def test_a_clip_that_is_longer_than_its_bytes_say(server: Server, tmp_path: Path) -> None:
    """Eleven seconds of silence are few bytes of FLAC."""
    path = tmp_path / "a.flac"
    soundfile.write(path, SILENCE, RATE)
    assert path.stat().st_size < 50_000
    response = server.client.post("api/predict", files={"audio": path.read_bytes()})
    assert (response.status_code, response.json()["problem"]) == (413, "a clip of 11.0 s")


def test_a_tag_before_a_clip(server: Server, clip: Path, tmp_path: Path) -> None:
    samples, rate = soundfile.read(clip)
    plain, tagged = tmp_path / "plain", tmp_path / "tagged"
    plain.write_bytes(encoded(samples, rate, "FLAC"))
    tagged.write_bytes(TAG + plain.read_bytes())
    assert server.predict(tagged) == server.predict(plain)


def test_the_document_describes_the_rows(server: Server, clip: Path) -> None:
    document = server.client.get("openapi.json").json()
    rows = document["components"]["schemas"]["Answered"]["properties"]["rows"]
    assert rows["items"]["required"] == list(server.predict(clip)["rows"][0])
    described = server.client.get("api/model").json()
    assert described["slots"] == {"text": "text", "speech": "audio"}
    assert described["attributes"] == {"arousal": [1.0, 5.0], "valence": [1.0, 5.0]}
    assert described["required"] == []
