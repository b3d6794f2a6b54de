"""Every usual format is decoded alike, and an incomplete file is refused with the reason."""

from __future__ import annotations

import io
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from numpy.typing import NDArray

from features.audio.container import find_fault
from features.audio.read import inspect_audio, read_audio
from features.errors import UtteranceError
from tests.support.corpora.usable_audio import inspect_usable

TONE_HZ = 440.0
AMPLITUDE = 0.5
SECONDS = 0.5
FORMATS = [
    *(
        ("WAV", "PCM_16"),
        ("WAV", "PCM_24"),
        ("WAV", "FLOAT"),
        ("WAV", "PCM_U8"),
        ("RF64", "PCM_16"),
    ),
    *(("AIFF", "PCM_16"), ("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("MP3", "MPEG_LAYER_III")),
]
Encoded = bytes


def encoded(
    kind: str,
    subtype: str | None = None,
    *,
    rate_hz: int = 16_000,
    channels: int = 1,
    seconds: float = SECONDS,
    **options: Any,
) -> Encoded:
    """A tone; of two channels the right one is silent."""
    times = np.arange(round(rate_hz * seconds)) / rate_hz
    wave = np.zeros((len(times), channels))
    wave[:, 0] = AMPLITUDE * np.sin(2 * np.pi * TONE_HZ * times)
    file = io.BytesIO()
    soundfile.write(file, wave, rate_hz, format=kind, subtype=subtype, **options)
    return file.getvalue()


def amplitude_and_hz(samples: NDArray[np.float32]) -> tuple[float, float]:
    """Of the strongest partial of the inner 0.3 s at 16 kHz: whole periods of 440 Hz."""
    inner = samples[1_600:6_400]
    spectrum = np.abs(np.fft.rfft(inner, 16 * len(inner)))
    strongest = int(np.argmax(spectrum))
    return 2 * spectrum[strongest] / len(inner), strongest * 16_000 / (16 * len(inner))


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 22_050, 44_100, 48_000])
@pytest.mark.parametrize(("kind", "subtype"), FORMATS)
def test_a_tone_survives_every_format(
    tmp_path: Path, kind: str, subtype: str, rate_hz: int, channels: int
) -> None:
    path = tmp_path / "tone.bin"
    path.write_bytes(encoded(kind, subtype, rate_hz=rate_hz, channels=channels))
    samples = read_audio(path)
    assert len(samples) == 16_000 * SECONDS
    assert inspect_usable(path).seconds == SECONDS
    amplitude, hz = amplitude_and_hz(samples)
    assert hz == pytest.approx(TONE_HZ, abs=0.5)
    assert amplitude == pytest.approx(AMPLITUDE / channels, rel=0.02)


def test_clipped_samples_are_kept(tmp_path: Path) -> None:
    wave = np.clip(3 * np.sin(np.arange(8_000) / 9), -1, 1)
    soundfile.write(tmp_path / "loud.wav", wave, 16_000, subtype="FLOAT")
    np.testing.assert_array_equal(read_audio(tmp_path / "loud.wav"), wave.astype(np.float32))


def cut(content: Encoded, share: float = 0.6) -> Encoded:
    return content[: int(len(content) * share)]


def size_field(content: Encoded, size: int) -> Encoded:
    """A WAV whose `data` chunk says that it has `size` bytes."""
    place = content.index(b"data") + 4
    return content[:place] + struct.pack("<I", size) + content[place + 4 :]


def flac_samples(content: Encoded, samples: int) -> Encoded:
    """A FLAC whose header says that it has so many samples: the low 36 bits of bytes 18 to 26."""
    word = int.from_bytes(content[18:26], "big") >> 36 << 36 | samples
    return content[:18] + word.to_bytes(8, "big") + content[26:]


def flipped(content: Encoded, share: float = 0.5) -> Encoded:
    place = int(len(content) * share)
    return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]


def id3(size: int) -> bytes:
    """An ID3v2 tag with `size` bytes of padding."""
    return b"ID3\4\0\0" + bytes([0, 0, size >> 7, size & 0x7F]) + bytes(size)


def without_xing(content: Encoded) -> Encoded:
    """An MP3 from its second frame on; frames begin with the same two bytes."""
    return content[content.index(content[:2], 100) :]


BROKEN: dict[str, tuple[Callable[[], Encoded], str]] = {
    "WAV cut": (lambda: cut(encoded("WAV")), r"file ends after 0\.299 s of 0\.500 s: it is trunc"),
    "WAV cut in the header": (lambda: encoded("WAV")[:44], "ends before its first sample"),
    "WAV of 24 bits cut": (lambda: cut(encoded("WAV", "PCM_24")), r"of 0\.500 s: it is truncated"),
    "WAV with tags before the samples cut": (
        lambda: cut(encoded("WAV").replace(b"data", b"LIST\3\0\0\0abc\0data", 1)),
        r"of 0\.500 s: it is truncated",
    ),
    "RF64 cut": (lambda: cut(encoded("RF64", "PCM_16")), r"of 0\.500 s: it is truncated"),
    "AIFF cut": (lambda: cut(encoded("AIFF")), r"of 0\.500 s: it is truncated"),
    "FLAC cut": (lambda: cut(encoded("FLAC")), "truncated or damaged|flac decoder"),
    "FLAC with too long a header": (
        lambda: flac_samples(encoded("FLAC"), 2**35),
        "truncated or damaged|cannot be decoded",
    ),
    "FLAC without its length": (lambda: flac_samples(encoded("FLAC"), 0), "header does not say"),
    "OGG cut": (
        lambda: cut(encoded("OGG", seconds=4), 0.99),
        r"ends after \d\.\d+ s within an Ogg",
    ),
    "OGG cut early": (lambda: cut(encoded("OGG", seconds=4), 0.4), "within an Ogg page"),
    "OGG cut between two pages": (
        lambda: (whole := encoded("OGG", seconds=4))[: whole.rindex(b"OggS")],
        "without an end-of-stream page",
    ),
    "OGG damaged": (lambda: flipped(encoded("OGG")), "damaged or missing Ogg page"),
    "OGG with a hole": (
        lambda: (whole := encoded("OGG"))[: len(whole) // 2] + whole[len(whole) // 2 + 9 :],
        "damaged or missing Ogg page|within an Ogg page",
    ),
    "MP3 cut": (lambda: cut(encoded("MP3")), r"ends after 0\.2\d\d s of 0\.500 s: it is truncated"),
    "MP3 with tags cut": (
        lambda: cut(id3(300) + encoded("MP3", seconds=2)),
        r"of 2\.000 s: it is truncated",
    ),
    "MP3 cut in its first frame": (lambda: encoded("MP3")[:170], "truncated|cannot be decoded"),
    "rate of no audio": (
        lambda: (wav := encoded("WAV"))[:24] + struct.pack("<I", 7) + wav[28:],
        "sample rate of 7 Hz.*convert it to 16000 Hz",
    ),
    "rate that shares nothing with 16 kHz": (
        lambda: (wav := encoded("WAV"))[:24] + struct.pack("<I", 16_001) + wav[28:],
        "sample rate of 16001 Hz",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_incomplete_files_are_refused_by_prepare_and_extract(tmp_path: Path, name: str) -> None:
    make, reason = BROKEN[name]
    path = tmp_path / "broken.bin"
    path.write_bytes(make())
    for read in (inspect_usable, read_audio):
        with pytest.raises(UtteranceError, match=reason) as caught:
            read(path, id="u7")
        assert caught.value.id == "u7"
        assert str(tmp_path) not in caught.value.reason


def loud_then_silent() -> NDArray[np.float64]:
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, 48_000)
    return np.concatenate([noise, np.zeros(48_000)])


def test_an_mp3_of_unknown_length_is_refused(tmp_path: Path) -> None:
    """Of variable bit rate, without the header: the decoder would drop most of it in silence."""
    file = io.BytesIO()
    soundfile.write(file, loud_then_silent(), 16_000, format="MP3", bitrate_mode="VARIABLE")
    path = tmp_path / "a.mp3"
    path.write_bytes(without_xing(file.getvalue()))
    with pytest.raises(UtteranceError, match=r"without a Xing header, 1\.\d+ s .* 6\.\d+ s by its"):
        read_audio(path)


def test_an_mp3_damaged_within_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.mp3"
    whole = encoded("MP3", seconds=2)
    middle = len(whole) // 2
    path.write_bytes(whole[:middle] + bytes(900) + whole[middle + 900 :])
    with path.open("rb") as file:
        assert inspect_audio(file, "a").seconds == 2  # its size is right
    for read in (inspect_usable, read_audio):
        with pytest.raises(UtteranceError, match=r"ends after 1\.\d+ s of 2\.000 s: .* or dam"):
            read(path)


WHOLE: dict[str, Callable[[], Encoded]] = {
    "written into a pipe": lambda: size_field(encoded("WAV"), 0xFFFFFFFF),
    "written into a pipe by SoX": lambda: size_field(encoded("WAV"), 0x7FFFF000),
    "counts its header, too": lambda: size_field(encoded("WAV"), 16_044),
    "tags behind a WAV": lambda: encoded("WAV") + b"LIST\4\0\0\0abcd",
    "tags before an MP3": lambda: id3(300) + encoded("MP3"),
    "tags behind an MP3": lambda: encoded("MP3") + b"TAG" + bytes(125),
    "tags before a WAV": lambda: id3(300) + encoded("WAV"),
    "something behind an Ogg": lambda: encoded("OGG") + b"TAG" + bytes(125),
    "MP3 of constant bit rate without a header": lambda: without_xing(
        encoded("MP3", bitrate_mode="CONSTANT", compression_level=0.5)
    ),
}


@pytest.mark.parametrize("name", WHOLE)
def test_odd_but_complete_files_are_read(tmp_path: Path, name: str) -> None:
    path = tmp_path / "odd.bin"
    path.write_bytes(WHOLE[name]())
    assert read_audio(path).shape[0] == pytest.approx(16_000 * SECONDS, abs=1_800)
    assert amplitude_and_hz(read_audio(path)) == pytest.approx((AMPLITUDE, TONE_HZ), rel=0.1)


def test_raw_samples_have_no_header(tmp_path: Path) -> None:
    (tmp_path / "a.raw").write_bytes(bytes(1_000))
    for read in (inspect_usable, read_audio):
        with pytest.raises(UtteranceError, match="cannot be decoded"):
            read(tmp_path / "a.raw")


@pytest.mark.parametrize("kind", ["WAV", "AIFF", "RF64", "OGG", "MP3", "FLAC"])
def test_files_cut_anywhere_raise_no_other_error(kind: str) -> None:
    """A verdict is given wherever a file is cut; the complete file has no fault."""
    content = encoded(kind, seconds=0.1)
    assert find_fault(io.BytesIO(content), 0.1) is None
    for length in [*range(200), *range(200, len(content), 97)]:
        find_fault(io.BytesIO(content[:length]), 0.1)
        find_fault(io.BytesIO(content[:length]), None)
