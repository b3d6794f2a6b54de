"""Audio files of every format, damaged in ways that a seed determines."""

from __future__ import annotations

import io
import random
import struct
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import soundfile

RATE = 16_000
FORMATS = (
    *(("WAV", subtype) for subtype in ("PCM_16", "PCM_24", "FLOAT", "PCM_U8", "ULAW", "IMA_ADPCM")),
    *(("FLAC", "PCM_16"), ("FLAC", "PCM_24"), ("OGG", "VORBIS"), ("OGG", "OPUS")),
    *(("MP3", "MPEG_LAYER_III"), ("AIFF", "PCM_16"), ("RF64", "PCM_16"), ("W64", "PCM_16")),
    *(("AU", "PCM_16"), ("CAF", "PCM_16"), ("NIST", "PCM_16")),
)
Content = bytes
Damage = Callable[[Content, random.Random], Content]


@dataclass(frozen=True)
class Damaged:
    """A damaged file: its name, its original content and its damaged content."""

    name: str
    whole: Content
    content: Content


def sound(seed: int, kind: str, subtype: str, seconds: float, channels: int) -> Content:
    """A gliding tone in noise."""
    times = np.arange(round(RATE * seconds)) / RATE
    noise = np.random.default_rng(seed).uniform(-0.1, 0.1, (len(times), channels))
    wave = 0.5 * np.sin(2 * np.pi * (200 + 300 * times) * times)[:, None] + noise
    file = io.BytesIO()
    soundfile.write(file, wave, RATE, format=kind, subtype=subtype)
    return file.getvalue()


def _cut(content: Content, draw: random.Random) -> Content:
    return content[: draw.randrange(len(content))]


def _cut_a_little(content: Content, draw: random.Random) -> Content:
    return content[: -draw.randrange(1, 200)]


def _without_beginning(content: Content, draw: random.Random) -> Content:
    return content[draw.randrange(1, len(content)) :]


def _flip_header(content: Content, draw: random.Random) -> Content:
    return _flipped(content, draw.randrange(min(120, len(content))), draw)


def _flip(content: Content, draw: random.Random) -> Content:
    return _flipped(content, draw.randrange(len(content)), draw)


def _flipped(content: Content, place: int, draw: random.Random) -> Content:
    bit = 1 << draw.randrange(8)
    return content[:place] + bytes([content[place] ^ bit]) + content[place + 1 :]


def _zeros(content: Content, draw: random.Random) -> Content:
    place, length = draw.randrange(len(content)), draw.randrange(1, 600)
    return content[:place] + bytes(min(length, len(content) - place)) + content[place + length :]


def _inserted(content: Content, draw: random.Random) -> Content:
    place = draw.randrange(len(content))
    return content[:place] + draw.randbytes(draw.randrange(1, 300)) + content[place:]


def _removed(content: Content, draw: random.Random) -> Content:
    place = draw.randrange(len(content))
    return content[:place] + content[place + draw.randrange(1, 300) :]


def _number(content: Content, draw: random.Random) -> Content:
    """Another number in the header."""
    place = 4 * draw.randrange(min(30, len(content) // 4))
    drawn = draw.choice([0, 1, 7, 12_800, 2**16, 2**31 - 1, 2**31, 2**32 - 1, draw.getrandbits(32)])
    number = struct.pack(draw.choice("<>") + "I", drawn)
    return content[:place] + number + content[place + 4 :]


def _twice(content: Content, draw: random.Random) -> Content:
    return content + draw.randbytes(draw.choice([0, 0, 5])) + content


def _noise_behind(content: Content, draw: random.Random) -> Content:
    return content + draw.randbytes(draw.randrange(1, 9_000))


def _half_replaced(content: Content, draw: random.Random) -> Content:
    half = len(content) // 2
    return content[:half] + draw.randbytes(len(content) - half)


DAMAGES: tuple[Damage, ...] = (
    *(_cut, _cut_a_little, _without_beginning, _flip_header, _flip, _zeros, _inserted, _removed),
    *(_number, _twice, _noise_behind, _half_replaced),
)


def damaged(seed: int) -> Damaged:
    """The file of a seed; consecutive seeds cover every format and every damage."""
    draw = random.Random(seed)
    kind, subtype = FORMATS[seed % len(FORMATS)]
    damage = DAMAGES[seed // len(FORMATS) % len(DAMAGES)]
    channels, seconds = draw.choice([1, 1, 2]), draw.choice([0.3, 0.8])
    whole = sound(seed, kind, subtype, seconds, channels)
    name = f"{seed:03d}{damage.__name__}.{kind.lower()}"
    return Damaged(name, whole, damage(whole, draw))
