"""Synthetic utterances, all different, since equal ones would be computed once."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np

from features.corpus.manifest import Manifest
from features.corpus.utterance import Utterance
from features.files.reading import file_sha256

RATE = 16_000  # Hz
# Few words, since the tokenizer of benchmarks/shared/networks.py makes a token of each letter.
WORDS = "so is it"


def between(shortest: float, longest: float, count: int) -> list[float]:
    """Durations in seconds, drawn evenly between two bounds (equal ones: all the same)."""
    drawn = np.random.default_rng(0).uniform(shortest, longest, count)
    return [round(float(seconds), 2) for seconds in drawn]


def make_clips(
    folder: Path, seconds: Sequence[float], *, shard_seconds: float = 3600.0
) -> Manifest:
    """Write a voice-like WAV file of each duration; their manifest, with short texts."""
    folder.mkdir(parents=True)
    with ThreadPoolExecutor() as pool:
        utterances = tuple(pool.map(partial(_clip, folder), range(len(seconds)), seconds))
    return Manifest("benchmark", utterances, shard_seconds=shard_seconds).located(folder)


def _clip(folder: Path, number: int, seconds: float) -> Utterance:
    """Write one clip."""
    import soundfile  # here, so that the module loads where it is not installed

    path = folder / f"u{number:05d}.wav"
    soundfile.write(path, _voice(number, seconds), RATE, subtype="PCM_16")
    return Utterance(
        id=path.stem,
        audio=path.name,
        sha256=file_sha256(path),
        text=f"{WORDS} {number:05d} {WORDS}",
        seconds=seconds,
        bytes=path.stat().st_size,
    )


def _voice(number: int, seconds: float) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """Five harmonics of 80 to 280 Hz, and noise, `[L]`."""
    generator = np.random.default_rng(number)
    time = np.arange(round(seconds * RATE), dtype=np.float32) / RATE
    hz = generator.uniform(80, 280)
    wave = 0.02 * generator.standard_normal(len(time), dtype=np.float32)
    for harmonic in range(1, 6):
        wave += (0.2 / harmonic * np.sin(2 * np.pi * hz * harmonic * time)).astype(np.float32)
    return wave
