"""Decoding, down-mixing and resampling, checked on tones whose every sample is known."""

from __future__ import annotations

import errno
import hashlib
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from features.audio import read as audio
from features.audio.read import audio_blocks, audio_seconds, read_audio
from features.corpus import inspection
from features.corpus.inspection import FileFacts, inspect_files
from features.errors import HeronryError, ManifestError, UtteranceError
from tests.support.corpora.usable_audio import inspect_usable

TONE_HZ = 440.0
LFS_POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 123\n"


def tone(rate_hz: int, seconds: float = 0.5, amplitude: float = 0.5) -> NDArray[np.float64]:
    times = np.arange(round(rate_hz * seconds)) / rate_hz
    return np.asarray(amplitude * np.sin(2 * np.pi * TONE_HZ * times))


def strongest_hz(samples: NDArray[np.float32], rate_hz: int = 16_000) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum) * rate_hz / len(samples))


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 22_050, 44_100, 48_000])
def test_a_tone_is_the_same_tone_at_every_rate(tmp_path: Path, rate_hz: int) -> None:
    soundfile.write(tmp_path / "tone.wav", tone(rate_hz), rate_hz, subtype="FLOAT")
    samples = read_audio(tmp_path / "tone.wav")
    assert samples.dtype == np.float32
    expected = tone(16_000)
    assert len(samples) == len(expected)
    inner = slice(200, -200)  # the filter sees silence beyond the ends
    assert np.abs(samples[inner] - expected[inner]).max() < 2e-3


def test_blocks_are_the_whole_in_parts_and_the_header_says_how_long(
    tmp_path: Path,
) -> None:
    soundfile.write(tmp_path / "tone.wav", tone(44_100, 60.0), 44_100)
    blocks = list(audio_blocks(tmp_path / "tone.wav"))
    assert 60 * 16_000 / 3 < max(map(len, blocks)) <= 2**20
    assert np.array_equal(np.concatenate(blocks), read_audio(tmp_path / "tone.wav"))
    assert audio_seconds(tmp_path / "tone.wav") == 60.0
    (tmp_path / "cut.wav").write_bytes((tmp_path / "tone.wav").read_bytes()[:50_000])
    with pytest.raises(UtteranceError, match="truncated"):
        audio_seconds(tmp_path / "cut.wav")


def test_frequencies_above_the_lower_rate_are_filtered_out(tmp_path: Path) -> None:
    times = np.arange(24_000) / 48_000
    soundfile.write(tmp_path / "high.wav", 0.5 * np.sin(2 * np.pi * 12_000 * times), 48_000)
    samples = read_audio(tmp_path / "high.wav")
    assert np.abs(samples[200:-200]).max() < 5e-3


@pytest.mark.parametrize(
    ("suffix", "subtype", "error"),
    [
        ("wav", "PCM_16", 1e-4),
        ("wav", "PCM_24", 1e-6),
        ("flac", "PCM_24", 1e-6),
        ("ogg", "VORBIS", 0.05),
        ("mp3", "MPEG_LAYER_III", None),  # an encoder's delay shifts it
    ],
)
def test_formats(tmp_path: Path, suffix: str, subtype: str, error: float | None) -> None:
    if not soundfile.check_format(suffix.upper(), subtype):
        pytest.skip(f"this libsndfile writes no {suffix}")
    path = tmp_path / f"tone.{suffix}"
    soundfile.write(path, tone(16_000), 16_000, subtype=subtype)
    samples = read_audio(path)
    assert strongest_hz(samples) == pytest.approx(TONE_HZ, abs=4)
    if error is not None:
        assert np.abs(samples - tone(16_000)).max() < error
    assert inspect_usable(path).seconds == pytest.approx(len(samples) / 16_000)


def test_the_format_is_that_of_the_content_not_of_the_name(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "tone.flac", tone(16_000), 16_000)
    (tmp_path / "tone.flac").rename(tmp_path / "tone.wav")
    assert len(read_audio(tmp_path / "tone.wav")) == 8_000


def test_channels_are_averaged(tmp_path: Path) -> None:
    left = tone(16_000)
    right = np.full_like(left, 0.25)
    soundfile.write(tmp_path / "two.wav", np.stack([left, right], 1), 16_000, subtype="FLOAT")
    samples = read_audio(tmp_path / "two.wav")
    np.testing.assert_allclose(samples, (left + right) / 2, atol=1e-6)


def test_inspection_reads_the_header(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "two.wav", np.zeros((22_050, 2)), 44_100)
    info = inspect_usable(tmp_path / "two.wav")
    found = (info.seconds, info.sample_rate_hz, info.channels, info.frames)
    assert found == (0.5, 44_100, 2, 22_050)


@pytest.mark.parametrize(
    ("start", "stop"), [(0.1, 0.3), (None, 0.2), (0.25, None), (0.4, 9.0), (0.0, 0.5)]
)
def test_a_span_is_a_slice(tmp_path: Path, start: float | None, stop: float | None) -> None:
    path = tmp_path / "noise.flac"
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 8_000)
    soundfile.write(path, noise, 16_000)
    whole = read_audio(path)
    first = None if start is None else round(start * 16_000)
    last = None if stop is None else round(stop * 16_000)
    np.testing.assert_array_equal(read_audio(path, start=start, stop=stop), whole[first:last])


@pytest.mark.parametrize("rate_hz", [8_000, 11_025, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize("suffix", ["wav", "flac", "ogg", "mp3"])
def test_parts_are_those_of_the_whole(tmp_path: Path, rate_hz: int, suffix: str) -> None:
    """Resampled too, wherever they begin: only the ends of the recording see silence."""
    path = tmp_path / f"noise.{suffix}"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 3 * rate_hz), rate_hz)
    for start, stop in ((None, None), (0.31, 2.7)):
        whole = read_audio(path, start=start, stop=stop)
        for first, last in [(0, 1), (0, 9_000), (777, 20_333), (24_001, None), (30_000, 10**6)]:
            if first < len(whole):
                found = read_audio(path, start=start, stop=stop, part=(first, last))
                np.testing.assert_allclose(found, whole[first:last], atol=1e-6)
    with pytest.raises(UtteranceError, match="ends before sample 60000"):
        read_audio(path, part=(60_000, None))


def test_a_changed_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(16_000), 16_000)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    assert len(read_audio(path, sha256=sha256)) == 8_000
    soundfile.write(path, tone(16_000, amplitude=0.4), 16_000)
    with pytest.raises(ManifestError, match=r"a\.wav has changed since `prepare`.*dvc repro"):
        read_audio(path, sha256=sha256)


def aged(path: Path, seconds: float = 3600.0) -> None:
    """As if it had been written some time ago."""
    changed_ns = path.stat().st_mtime_ns - round(seconds * 1e9)
    os.utime(path, ns=(changed_ns, changed_ns))


@pytest.mark.parametrize("seconds", [0.5, 0.7])
@pytest.mark.parametrize("replaced", ["in place", "by another file"])
def test_a_span_of_a_changed_file_is_refused(tmp_path: Path, seconds: float, replaced: str) -> None:
    """Also while a process runs, and if size and time of modification are the old ones."""
    path, other = tmp_path / "a.wav", tmp_path / "b.wav"
    soundfile.write(path, tone(16_000), 16_000)
    aged(path)
    right, times = path.read_bytes(), path.stat()
    sha256 = hashlib.sha256(right).hexdigest()
    expected = read_audio(path, start=0.1, stop=0.3)
    for _ in range(2):
        found = read_audio(path, start=0.1, stop=0.3, sha256=sha256)
        np.testing.assert_array_equal(found, expected)
        soundfile.write(other, tone(16_000, seconds, amplitude=0.4), 16_000)
        if replaced == "in place":
            path.write_bytes(other.read_bytes())
        else:
            other.rename(path)
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        with pytest.raises(ManifestError, match=r"a\.wav has changed since `prepare`.*dvc repro"):
            read_audio(path, start=0.1, stop=0.3, sha256=sha256)
        path.write_bytes(right)  # the right one is back: another change of the same file
        os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def test_a_recording_is_hashed_once_for_all_of_its_spans(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(16_000), 16_000)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    hashed: list[str] = []
    digest = audio._digest

    def count(file: BufferedReader) -> str:
        hashed.append(digest(file))
        return hashed[-1]

    monkeypatch.setattr(audio, "_hashed", {})
    monkeypatch.setattr(audio, "settled", lambda *_: True)
    monkeypatch.setattr(audio, "_digest", count)
    for n in range(40):
        read_audio(path, start=n / 100, stop=n / 100 + 0.1, sha256=sha256)
    assert len(hashed) == 1
    path.with_name("b.wav").hardlink_to(path)  # changes its inode, not its content
    read_audio(path, start=0.1, sha256=sha256)
    assert len(hashed) == 2


def test_a_recording_that_changes_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(16_000), 16_000)
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    joined = audio._joined

    def meanwhile(blocks: Iterable[NDArray[np.float32]]) -> NDArray[np.float32]:
        path.write_bytes(path.read_bytes()[:-2] + b"xy")
        return joined(blocks)

    monkeypatch.setattr(audio, "_joined", meanwhile)
    with pytest.raises(ManifestError, match=r"a\.wav has changed"):
        read_audio(path, sha256=sha256)


def test_a_missing_file_is_not_the_utterances_fault(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"cannot read audio file .*gone\.wav.*dvc repro"):
        read_audio(tmp_path / "gone.wav")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "the file is empty"),
        (LFS_POINTER, "git-LFS pointer.*git lfs pull"),
        (b"RIFF but not really", "cannot be decoded"),
        (b"\x00" * 4096, "cannot be decoded"),
        (b"\0\0\0\x20ftypM4A " + bytes(99), "MPEG-4 .*convert it by `ffmpeg -i FILE FILE.wav`"),
        (b"\x1aE\xdf\xa3" + bytes(99), "WebM or Matroska, which is not .*ffmpeg"),
        (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11" + bytes(99), "Windows Media .*ffmpeg"),
        (b"#!AMR\n" + bytes(99), "AMR.*ffmpeg"),
        (b"\xff\xf1\x50\x80" + bytes(99), "AAC.*ffmpeg"),
        (b"<!doctype html>\n<p>404</p>", "a web page, not audio"),
    ],
)
def test_files_that_are_no_audio(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "bad.wav").write_bytes(content)
    for read in (inspect_usable, read_audio):
        with pytest.raises(UtteranceError, match=reason) as caught:
            read(tmp_path / "bad.wav", id="u7")
        assert caught.value.id == "u7"
        assert str(tmp_path) not in caught.value.reason  # reasons are the same on every machine


def test_audio_without_samples(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "none.wav", np.zeros(0), 16_000)
    for read in (inspect_usable, read_audio):
        with pytest.raises(UtteranceError, match="holds no samples"):
            read(tmp_path / "none.wav")


def test_samples_that_are_not_finite(tmp_path: Path) -> None:
    samples = tone(16_000)
    samples[100] = np.nan
    soundfile.write(tmp_path / "nan.wav", samples, 16_000, subtype="FLOAT")
    with pytest.raises(UtteranceError, match="not finite"):
        read_audio(tmp_path / "nan.wav")


def test_a_truncated_flac(tmp_path: Path) -> None:
    path = tmp_path / "cut.flac"
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 32_000)
    soundfile.write(path, noise, 16_000)
    path.write_bytes(path.read_bytes()[:20_000])
    with pytest.raises(UtteranceError, match="cannot be decoded"):
        read_audio(path)


def test_a_span_beyond_the_end_of_a_truncated_mp3(tmp_path: Path) -> None:
    path = tmp_path / "cut.mp3"
    soundfile.write(path, np.random.default_rng(0).uniform(-0.5, 0.5, 32_000), 16_000)
    path.write_bytes(path.read_bytes()[:2_000])
    with pytest.raises(UtteranceError, match=r"holds no samples|cannot be decoded"):
        read_audio(path, start=1.0, stop=1.5)
    with pytest.raises(UtteranceError, match=r"ends after 0\.\d* s of 1\.500 s"):
        read_audio(path, start=0.1, stop=1.5)


def test_a_span_beyond_the_end(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(16_000), 16_000)
    with pytest.raises(UtteranceError, match=r"from 0\.6 to 0\.9 s holds no samples of 0\.500 s"):
        read_audio(tmp_path / "a.wav", start=0.6, stop=0.9)


class Failing(io.BytesIO):
    """A file of which the disk can read only the beginning."""

    def read(self, size: int | None = -1, /) -> bytes:
        if self.tell() + (size or 0) > 9_000:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().read(size)


def test_a_failing_disk_is_not_the_utterances_fault(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "a.wav"
    soundfile.write(path, tone(16_000), 16_000)
    with pytest.raises(ManifestError, match=r"'u7' cannot be read \(Input/output error"):
        audio.inspect_audio(Failing(path.read_bytes()), "u7")
    assert "Traceback" not in capfd.readouterr().err


def test_soundfile_absent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    soundfile.write(tmp_path / "a.wav", tone(16_000), 16_000)
    monkeypatch.setitem(sys.modules, "soundfile", None)
    with pytest.raises(HeronryError, match="pip install soundfile"):
        inspect_usable(tmp_path / "a.wav")


def test_inspection_gives_facts_or_a_reason(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(16_000), 16_000)
    (tmp_path / "b.wav").write_bytes(LFS_POINTER)
    (tmp_path / "c.wav").mkdir()
    facts = inspect_files(tmp_path, ["a.wav", "b.wav", "c.wav", "d.wav"])
    content = (tmp_path / "a.wav").read_bytes()
    assert isinstance(facts["a.wav"], FileFacts)
    assert facts["a.wav"].sha256 == hashlib.sha256(content).hexdigest()
    assert (facts["a.wav"].bytes, facts["a.wav"].seconds) == (len(content), 0.5)
    assert "git-LFS" in str(facts["b.wav"])
    assert facts["c.wav"] == "the file cannot be read (Is a directory)"
    assert facts["d.wav"] == "there is no such file below the corpus root"


def test_a_bounded_number_of_files_is_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, most = [0], [0]

    class Names(list[str]):
        def __iter__(self) -> Iterator[str]:
            for name in super().__iter__():
                asked[0] += 1
                yield name

    def one_by_one(found: Iterator[Any], **_: Any) -> Iterator[Any]:
        for done, each in enumerate(found):
            most[0] = max(most[0], asked[0] - done)
            yield each

    monkeypatch.setattr(inspection, "progress", one_by_one)
    monkeypatch.setattr(inspection, "AHEAD", 1)
    names = Names(f"{n}.wav" for n in range(500))
    facts = inspect_files(tmp_path, names)
    assert list(facts) == [f"{n}.wav" for n in range(500)]
    assert 1 < most[0] <= 2 * (os.cpu_count() or 1) + 1


@pytest.fixture
def remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A file, and a memory in which its hash has been replaced by a mark."""
    path, memory = tmp_path / "a.wav", tmp_path / "hashes" / "x.jsonl"
    soundfile.write(path, tone(16_000), 16_000)
    monkeypatch.setattr("features.files.reading.SETTLED_NS", -(10**12))  # as if it were old
    inspect_files(tmp_path, ["a.wav"], memory=memory)
    (row,) = [json.loads(line) for line in memory.read_text().splitlines()]
    memory.write_text("not JSON\n" + json.dumps(row | {"sha256": "mark"}) + "\n")
    return path, memory


def sha_of(found: FileFacts | str) -> str:
    assert isinstance(found, FileFacts)
    return found.sha256


def test_an_unchanged_file_is_not_read_again(tmp_path: Path, remembered: tuple[Path, Path]) -> None:
    _, memory = remembered
    assert sha_of(inspect_files(tmp_path, ["a.wav"], memory=memory)["a.wav"]) == "mark"


@pytest.mark.parametrize("change", ["size", "modified", "content", "replaced"])
def test_a_changed_file_is_read_again(
    tmp_path: Path, remembered: tuple[Path, Path], change: str
) -> None:
    """The last two keep size and time of modification, as a copy that keeps times may."""
    path, memory = remembered
    times, content = path.stat(), path.read_bytes()
    other = content[:-2] + b"xy"
    if change == "replaced":
        (tmp_path / "new").write_bytes(other)
        (tmp_path / "new").rename(path)
    elif change != "modified":
        path.write_bytes({"size": content + b"\0", "content": other}[change])
    later_ns = 1 if change == "modified" else 0
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns + later_ns))
    assert sha_of(inspect_files(tmp_path, ["a.wav"], memory=memory)["a.wav"]) != "mark"


def test_a_file_written_just_now_is_not_remembered(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(16_000), 16_000)
    memory = tmp_path / "x.jsonl"
    inspect_files(tmp_path, ["a.wav"], memory=memory)
    assert memory.read_text() == ""


def test_memory_keeps_the_other_files(tmp_path: Path, remembered: tuple[Path, Path]) -> None:
    path, memory = remembered
    inspect_files(tmp_path, [], memory=memory)
    assert str(path) in memory.read_text()


def test_a_memory_that_cannot_be_written_costs_time_only(tmp_path: Path) -> None:
    soundfile.write(tmp_path / "a.wav", tone(16_000), 16_000)
    (tmp_path / "file").write_text("")
    facts = inspect_files(tmp_path, ["a.wav"], memory=tmp_path / "file" / "x.jsonl")
    assert isinstance(facts["a.wav"], FileFacts)
