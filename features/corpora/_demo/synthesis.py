"""Synthesise the planned utterances of the demo corpus: FLAC files, 16 kHz, mono, 16 bit.

One fresh process speaks all words in order; after that utterances are independent and are finished
on all cores. Random numbers depend on the seed and the number of the utterance alone.

Shapes: T samples at `SAMPLE_RATE_HZ`.
"""

from __future__ import annotations

import dataclasses
import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
from numpy.typing import NDArray
from scipy.signal import resample_poly

from features.corpora._demo import espeak
from features.corpora._demo.plan import Planned
from features.corpora._demo.prosody import shape
from features.corpora._demo.sounds import SAMPLE_RATE_HZ, SOUNDS, Floats, Throat
from features.corpora._demo.texts import spoken
from features.corpora._demo.voices import STYLES, Style
from features.process.terminal import progress
from features.process.workers import WorkerPool

Samples = NDArray[np.int16]
LEVEL_DB = -27.0  # level of neutral speech, relative to full scale
SOUND_DB = {"laugh": -24.0, "sob": -28.0, "sigh": -30.0, "gasp": -26.0}
NOISE_DB = -66.0  # background noise: digital silence would reveal how a file was made
PEAK = 0.89
EDGE_SECONDS, GAP_SECONDS, SHORTEST_SECONDS = 0.1, 0.08, 1.05
MOST_WORKERS = 8  # more take longer to start than they save
_UP, _DOWN = 320, 441  # 22 050 Hz to 16 000 Hz


def synthesise(planned: Sequence[Planned], seed: int, folder: Path) -> None:
    """Write `<id>.flac` below `folder` for each utterance.

    It spawns processes, so a script that calls it needs `if __name__ == "__main__":`.

    Raises:
        HeronryError: If espeak-ng is missing or fails.
    """
    espeak.require()
    requests = [(p.speaker.voice, spoken(p.text)) for p in planned if p.place != "alone"]
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 1
    # Fresh interpreters: a forked one would inherit threads, and espeak-ng must not have spoken.
    with WorkerPool(min(cores, MOST_WORKERS)) as pool:
        speech = iter(pool.submit(espeak.speak, requests).result())
        plain = [None if p.place == "alone" else next(speech) for p in planned]
        seeds = [(seed, number) for number in range(len(planned))]
        paths = [folder / f"{p.id}.flac" for p in planned]
        done = pool.map(_write, planned, plain, seeds, paths, chunksize=8)
        for _ in progress(done, total=len(planned), what="speaking", unit="utterance"):
            pass


def _write(planned: Planned, plain: Samples | None, seed: tuple[int, int], path: Path) -> None:
    samples = render(planned, plain, np.random.default_rng(seed))
    content = io.BytesIO()  # soundfile's own error for a full disk is not understandable
    soundfile.write(content, samples, SAMPLE_RATE_HZ, subtype="PCM_16", format="FLAC")
    path.write_bytes(content.getbuffer())


def render(planned: Planned, plain: Samples | None, rng: np.random.Generator) -> Samples:
    """Render one utterance: words, sound, pauses and background noise.

    Args:
        planned: The utterance.
        plain: The words as espeak-ng speaks them, `[samples]` at 22 050 Hz; None without words.
        rng: Random generator of this utterance, for style strength, jitter, breath and noise.

    Returns:
        `[T]` at `SAMPLE_RATE_HZ`.
    """
    style, speaker = _varied_style(planned, rng), planned.speaker
    parts = []
    if plain is not None:
        speech = resample_poly(_trimmed(plain / 32768.0), _UP, _DOWN)
        parts = [_levelled(shape(speech, speaker, style, rng), LEVEL_DB + style.gain_db)]
    if planned.sound:
        throat = Throat(speaker.pitch_hz, speaker.formant, rng)
        sound = SOUNDS[planned.sound](throat, alone=planned.place == "alone")
        parts.append(_levelled(sound, SOUND_DB[planned.sound]))
    if planned.place == "before":
        parts.reverse()
    gap, edge = _silence(GAP_SECONDS), _silence(EDGE_SECONDS)
    wave = np.concatenate([edge, *(x for part in parts for x in (part, gap)), edge])
    lacking = max(0, round(SHORTEST_SECONDS * SAMPLE_RATE_HZ) - len(wave))
    wave = np.pad(wave, (lacking // 2, lacking - lacking // 2))
    wave = wave + 10 ** (NOISE_DB / 20) * rng.standard_normal(len(wave))
    wave *= min(1.0, PEAK / np.abs(wave).max())
    return np.asarray(np.rint(wave * 32767), np.int16)


def _varied_style(planned: Planned, rng: np.random.Generator) -> Style:
    """Style of an utterance with small random variations."""
    style = STYLES[planned.label if planned.audio_cue else "neutral"]
    style = style.scaled(rng.uniform(0.9, 1.15))
    return dataclasses.replace(
        style,
        pitch=style.pitch + rng.normal(0.0, 0.5),
        rate=style.rate * rng.uniform(0.96, 1.04),
        gain_db=style.gain_db + rng.normal(0.0, 0.7),
    )


def _trimmed(wave: Floats) -> Floats:
    """Remove the silence that espeak-ng leaves at both ends."""
    loud = np.flatnonzero(np.abs(wave) > 0.005)
    return wave[max(0, loud[0] - 220) : loud[-1] + 220] if len(loud) else wave


def _levelled(wave: Floats, db: float) -> Floats:
    return np.asarray(wave * 10 ** (db / 20) / (np.sqrt(np.mean(wave**2)) + 1e-12))


def _silence(seconds: float) -> Floats:
    return np.zeros(round(seconds * SAMPLE_RATE_HZ))
