"""Files that hold more sound than decoders play are reported; others are not."""

from __future__ import annotations

import io
import re
import struct
from collections.abc import Callable

import numpy as np
import pytest
import soundfile

from features.audio.container import _ogg_checksum, find_fault, mp3_frames, payload
from features.audio.excess import find_excess
from features.audio.read import inspect_audio
from tests.features.audio.test_formats import (
    WHOLE,
    Encoded,
    encoded,
    flac_samples,
    flipped,
    id3,
    size_field,
    without_xing,
)


def chunk_size(content: Encoded, name: bytes, size: int) -> Encoded:
    """An AIFF whose chunk says another size."""
    place = content.index(name) + 4
    return content[:place] + struct.pack(">I", size) + content[place + 4 :]


def edited(content: Encoded, chunk: bytes, offset: int, field: bytes) -> Encoded:
    """Other bytes in the head of a chunk; the offset counts from its size."""
    place = content.index(chunk) + 4 + offset
    return content[:place] + field + content[place + len(field) :]


def riff_size(content: Encoded, size: int) -> Encoded:
    return content[:4] + struct.pack("<I", size) + content[8:]


def au_size(content: Encoded, size: int) -> Encoded:
    return content[:8] + struct.pack(">I", size) + content[12:]


def caf_size(content: Encoded, size: int) -> Encoded:
    place = content.index(b"data") + 4
    return content[:place] + struct.pack(">q", size) + content[place + 8 :]


def long_size(content: Encoded, size: int) -> Encoded:
    """An RF64 whose `ds64` chunk says another size of samples."""
    place = content.index(b"ds64") + 16
    return content[:place] + struct.pack("<Q", size) + content[place + 8 :]


def xing_frames(content: Encoded, frames: int) -> Encoded:
    place = max(content.find(b"Xing"), content.find(b"Info")) + 8
    return content[:place] + struct.pack(">I", frames) + content[place + 4 :]


def last_granule(content: Encoded, granule: int) -> Encoded:
    """An Ogg whose last page says another time; its checksum is right."""
    place = content.rindex(b"OggS")
    head = content[place : place + 6] + struct.pack("<q", granule) + content[place + 14 :]
    head = head[:22] + bytes(4) + head[26:]
    return content[:place] + head[:22] + struct.pack("<I", _ogg_checksum(head, b"")) + head[26:]


def behind_frames(content: Encoded, count: int) -> Encoded:
    """An MP3 from that frame on."""
    frames = mp3_frames(io.BytesIO(content))
    return content[sum(next(frames).length for _ in range(count)) :]


def noise(kind: str, seconds: float, **options: str | float) -> Encoded:
    """Its frames differ in length."""
    file = io.BytesIO()
    wave = np.random.default_rng(1).uniform(-0.5, 0.5, round(16_000 * seconds))
    soundfile.write(file, wave, 16_000, format=kind, **options)
    return file.getvalue()


PART = r"header says 0\.400 s, but it holds 2\.000 s: only the first 0\.400 s are used"
EXCESS: dict[str, tuple[Callable[[], Encoded], str]] = {
    "WAV": (lambda: size_field(encoded("WAV", seconds=2), 12_800), PART),
    "WAV with chunks behind": (
        lambda: size_field(encoded("WAV", seconds=2), 12_800) + b"LIST\4\0\0\0abcd",
        r"holds 2\.000 s",
    ),
    "WAV of 24 bits and two channels": (
        lambda: size_field(encoded("WAV", "PCM_24", seconds=2, channels=2), 38_400),
        PART,
    ),
    "RF64": (lambda: long_size(encoded("RF64", "PCM_16", seconds=2), 12_800), PART),
    "AIFF": (lambda: chunk_size(encoded("AIFF", seconds=2), b"SSND", 12_808), r"holds 1\.999 s"),
    "AU": (lambda: au_size(encoded("AU", seconds=2), 12_800), PART),
    "CAF": (lambda: caf_size(encoded("CAF", seconds=2), 12_804), r"holds (1\.999|2\.000) s"),
    "FLAC": (lambda: flac_samples(encoded("FLAC", seconds=2), 6_400), PART),
    "FLAC of stereo noise": (lambda: flac_samples(noise("FLAC", 2), 6_400), PART),
    "FLAC behind tags": (lambda: id3(300) + flac_samples(encoded("FLAC", seconds=2), 6_400), PART),
    "two FLACs": (lambda: encoded("FLAC") + encoded("FLAC", seconds=0.2), "another FLAC stream"),
    "MP3": (lambda: xing_frames(encoded("MP3", seconds=2), 20), r"only the first 0\.\d+ s"),
    "two MP3s": (lambda: 2 * encoded("MP3", seconds=2), r"says 2\.000 s, but it holds 4\.\d+ s"),
    "two MP3s with tags": (lambda: 2 * (id3(99) + encoded("MP3", seconds=2)), r"holds 4\.\d+ s"),
    "MP3 and one without a header": (
        lambda: encoded("MP3") + without_xing(encoded("MP3")),
        r"says 0\.500 s, but it holds 1\.\d+ s",
    ),
    "Ogg chain": (lambda: encoded("OGG") + encoded("OGG", seconds=2), "holds 2 Ogg streams one af"),
    "Opus chain": (lambda: 3 * encoded("OGG", "OPUS"), "holds 3 Ogg streams.* 0.500 s, is used"),
    "Ogg whose last page goes back": (
        lambda: last_granule(noise("OGG", 4, subtype="VORBIS"), 6_400),
        "only the first 0.400 s",
    ),
}

CONTRADICTIONS: dict[str, tuple[Callable[[], Encoded], str]] = {
    "WAV of another rate": (
        lambda: edited(encoded("WAV"), b"fmt ", 8, struct.pack("<I", 22_050)),
        "22050 samples a second of 16 bits in 1 channels, but 2 bytes for each and 32000 a sec",
    ),
    "WAV of more channels": (
        lambda: edited(encoded("WAV", "PCM_24"), b"fmt ", 6, struct.pack("<H", 2)),
        "contradicts itself",
    ),
    "RF64 of another rate": (
        lambda: edited(encoded("RF64", "PCM_16"), b"fmt ", 8, struct.pack("<I", 8_000)),
        "8000 samples a second",
    ),
    "AIFF of more channels": (
        lambda: edited(encoded("AIFF"), b"COMM", 4, struct.pack(">h", 2)),
        "8000 samples of 16 bits in 2 channels, and 16008 bytes",
    ),
    "FLAC of another rate": (
        lambda: (whole := encoded("FLAC"))[:18] + b"\x05\x62\x20" + whole[21:],
        "22050 samples a second, but 16000 in its frames",
    ),
    "two W64s": (lambda: 2 * encoded("W64"), "what follows, up to 1.0.. s, is used as if it were"),
    "NIST with something behind": (
        lambda: encoded("NIST", "PCM_16") + b"\x01" * 1_600,
        "what follows, up to 0.550 s, is used as if it were sound",
    ),
    "MP3 without its beginning": (
        lambda: behind_frames(noise("MP3", 3, bitrate_mode="CONSTANT", compression_level=0.5), 9),
        "its beginning is lost",
    ),
    "MP3 behind a part of a frame": (
        lambda: (whole := encoded("MP3", seconds=2))[:30] + whole,
        "the first 30 bytes of it are no MP3",
    ),
}


@pytest.mark.parametrize("name", CONTRADICTIONS)
def test_contradictory_headers_are_reported(name: str) -> None:
    make, message = CONTRADICTIONS[name]
    (notice,) = inspect_audio(io.BytesIO(make()), "u7").notices
    assert re.search(message, notice), notice


@pytest.mark.parametrize("name", EXCESS)
def test_sound_that_is_not_used_is_reported(name: str) -> None:
    make, message = EXCESS[name]
    found = inspect_audio(io.BytesIO(make()), "u7")
    assert not found.stretches
    (notice,) = found.notices
    assert pytest.approx(found.seconds, abs=0.001) in [0.4, 0.5, 0.632, 2.0]
    assert re.search(message, notice), notice


ALL_USED: dict[str, Callable[[], Encoded]] = {
    **{name: make for name, make in WHOLE.items() if "Ogg" not in name},
    **{
        f"{kind} {seconds} s": lambda kind=kind, seconds=seconds: noise(kind, seconds)  # type: ignore[misc]
        for kind in ("WAV", "AIFF", "FLAC", "OGG", "MP3", "RF64", "AU", "CAF", "W64", "NIST")
        for seconds in (0.05, 3.2)
    },
    "opus": lambda: encoded("OGG", "OPUS", seconds=3),
    "WAV with a wrong size of RIFF": lambda: riff_size(encoded("WAV"), 1_000),
    "WAV with zeros behind": lambda: encoded("WAV") + bytes(3_000),
    "WAV with ID3 behind": lambda: encoded("WAV") + id3(3_000),
    "WAV with an odd chunk": lambda: encoded("WAV") + b"abcd\3\0\0\0abc\0LIST\2\0\0\0ab",
    "AU of unknown length": lambda: au_size(encoded("AU"), 0xFFFFFFFF),
    "FLAC with a tag behind": lambda: encoded("FLAC") + b"TAG" + bytes(125),
}


@pytest.mark.parametrize("name", ALL_USED)
def test_files_that_are_used_wholly_have_no_notice(name: str) -> None:
    found = inspect_audio(io.BytesIO(ALL_USED[name]()), "u7")
    assert not found.notices
    assert not found.stretches


@pytest.mark.parametrize("kind", ["AU", "W64", "CAF", "NIST"])
def test_a_container_that_is_cut_is_refused(kind: str) -> None:
    whole = encoded(kind, "PCM_16")
    assert payload(io.BytesIO(whole)) is not None
    assert find_fault(io.BytesIO(whole), 0.5) is None
    fault = find_fault(io.BytesIO(whole[: len(whole) * 6 // 10]), 0.3)
    assert fault is not None
    assert "it is truncated" in fault


@pytest.mark.parametrize("kind", ["WAV", "AIFF", "RF64", "OGG", "MP3", "FLAC", "CAF", "W64", "AU"])
def test_damaged_files_raise_no_other_error(kind: str) -> None:
    content = encoded(kind, seconds=0.1)
    for n in range(40):
        find_excess(io.BytesIO(content[: len(content) * n // 40]), 0.1, kind)
        find_excess(io.BytesIO(flipped(content, n / 40)), 0.1, kind)
