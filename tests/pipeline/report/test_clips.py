"""Clips inside the page: their span, size, budget, and the reasons for missing ones."""

from __future__ import annotations

import base64
import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile

from features.corpus.manifest import Label
from features.corpus.utterance import Utterance
from features.files.records import write_rows
from pipeline.report.clips import Clip, Clips, audio_root
from pipeline.report.evaluate import evaluate
from pipeline.report.page import section, view_of
from pipeline.report.records import Report
from tests.support.runs.fake_run import FakeRun

RATE_HZ = 44_100
LABEL = Label("u1", "sad", "s", text="hm", audio="audio/a.wav")


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    """A stereo recording of 1 s of silence and 1 s of a tone of 440 Hz in its left channel."""
    folder = tmp_path / "corpus"
    (folder / "audio").mkdir(parents=True)
    seconds = np.arange(2 * RATE_HZ) / RATE_HZ
    tone = 0.8 * np.sin(2 * np.pi * 440 * seconds) * (seconds >= 1)
    stereo = np.stack([tone, np.zeros_like(tone)], 1)
    soundfile.write(folder / "audio/a.wav", stereo, RATE_HZ)
    return folder


def decoded(address: str) -> tuple[np.ndarray, int]:
    kind, _, content = address.partition(",")
    assert kind == "data:audio/mpeg;base64"
    samples, rate_hz = soundfile.read(io.BytesIO(base64.b64decode(content, validate=True)))
    return samples, rate_hz


def test_a_clip_is_the_span_in_mono_at_16_khz(corpus: Path) -> None:
    clip = Clips(corpus).find(replace(LABEL, start=1.0, stop=1.5))
    samples, rate_hz = decoded(clip.address)
    assert clip.silent == ""
    assert (rate_hz, samples.ndim) == (16_000, 1)
    assert len(samples) / rate_hz == pytest.approx(0.5, abs=0.15)  # MP3 pads to whole frames
    heard = np.abs(np.fft.rfft(samples, 2 * rate_hz))
    assert np.argmax(heard) / 2 == pytest.approx(440, abs=3)
    # the mean of a tone of amplitude 0.8 and silence
    assert np.abs(samples[2000:6000]).max() == pytest.approx(0.4, abs=0.05)
    whole, _ = decoded(Clips(corpus).find(LABEL).address)
    assert len(whole) > 3 * len(samples)


def test_equal_clips_have_equal_bytes(corpus: Path) -> None:
    assert Clips(corpus).find(LABEL) == Clips(corpus).find(LABEL)


def test_what_exceeds_the_budget_is_left_out_and_smaller_clips_go_on(corpus: Path) -> None:
    size = len(Clips(corpus).find(LABEL).address)
    short = replace(LABEL, start=0.0, stop=0.2)
    clips = Clips(corpus, budget_bytes=2 * size - 1)
    assert clips.find(LABEL).address
    full = f"the clips of a page hold {(2 * size - 1) / 1e6:g} MB at most"
    assert clips.find(LABEL) == Clip(silent=full)
    assert clips.find(short).address


@pytest.mark.parametrize("path", ["/etc/passwd", "../secret.wav", "audio/../../secret.wav"])
def test_nothing_outside_the_corpus_is_read(corpus: Path, path: str) -> None:
    soundfile.write(corpus.parent / "secret.wav", np.zeros(RATE_HZ), RATE_HZ)
    found = Clips(corpus).find(replace(LABEL, audio=path))
    assert found == Clip(silent="its path leaves the corpus's folder")


def test_what_cannot_be_heard_says_why(corpus: Path) -> None:
    (corpus / "audio/bad.wav").write_bytes(b"RIFF")
    unreadable = "its audio cannot be read on the machine that wrote this page"
    gone = "its audio is missing, or is not the recording that the model was tested on"
    for reason, changes in (
        (unreadable, {"audio": "audio/bad.wav"}),
        (unreadable, {"start": 7.0, "stop": 8.0}),
        (gone, {"audio": "audio/missing.wav"}),
        ("the corpus has no audio of it", {"audio": None}),
    ):
        label: Label = replace(LABEL, **changes)
        assert Clips(corpus).find(label) == Clip(silent=reason)
    assert "not on the machine" in Clips(None).find(LABEL).silent


@pytest.fixture
def report(tmp_path: Path) -> Report:
    fake = FakeRun(tmp_path, facts=True).write()
    return evaluate(fake.run, fake.data)


def errors_section(report: Report) -> str:
    return section("errors", **view_of(report))


def with_sound(report: Report, missing: int = 0) -> str:
    """The section, after the clips of all but some of the errors were put where they belong."""
    folder = report.run.path.parents[3] / "data/fake/utterances/audio"
    folder.mkdir(parents=True, exist_ok=True)
    soundfile.write(folder / "x.wav", np.full(1600, 0.1), 16_000)
    shown = []
    for k, error in enumerate(report.errors.shown):
        audio = "audio/no.wav" if k < missing else "audio/x.wav"
        moved = replace(error.utterance, audio=audio, start=None, stop=None)
        shown.append(replace(error, utterance=moved))
    return errors_section(replace(report, errors=replace(report.errors, shown=tuple(shown))))


def test_errors_have_text_speaker_and_a_player(report: Report) -> None:
    found = with_sound(report, missing=2)
    error = report.errors.shown[0]
    assert f"<b>{error.utterance.label}</b>, predicted <b>{error.predicted}</b>" in found
    assert f"(probability {error.probability:.2f})" in found
    assert f"wrong in {error.seeds_wrong} of 2 seeds" in found
    assert found.count('<audio controls="" preload="none" src="data:audio/mpeg;base64,') == (
        len(report.errors.shown) - 2
    )
    assert found.count("no sound: its audio is missing") == 2
    assert "under its licence (CC0-1.0)" in found
    assert f"“{error.utterance.text}”" in found


def test_a_recording_that_was_replaced_is_not_played(report: Report) -> None:
    folder = report.run.path.parents[3] / "data/fake/utterances"
    folder.mkdir(parents=True)
    ids = [error.utterance.id for error in report.errors.shown]
    rows = [Utterance(id, "audio/x.wav", "0" * 64) for id in ids[1:]]
    write_rows(folder / "manifest.jsonl", rows)
    found = with_sound(report)
    assert found.count("<audio") == 1
    assert found.count("no sound: its audio is missing, or is not the recording") == len(ids) - 1


def test_sound_can_be_left_out(report: Report, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HERONRY_REPORT_AUDIO", "no")
    found = with_sound(report)
    assert "<audio" not in found
    assert "No sound: left out." in found


def test_without_the_corpus_the_text_is_left(report: Report) -> None:
    found = errors_section(report)
    assert "<audio" not in found
    assert found.count("not on the machine that wrote this page") == 1


def test_a_users_corpus_is_found_by_its_root(
    report: Report, corpus: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert audio_root(report.run) is None
    monkeypatch.setenv("HERONRY_FAKE_ROOT", str(corpus))
    assert audio_root(report.run) == corpus


def test_no_errors_need_no_list(tmp_path: Path) -> None:
    fake = FakeRun(tmp_path, skill=1.0).write()
    found = errors_section(evaluate(fake.run, fake.data))
    assert "No test utterance was predicted wrongly by most seeds" in found
