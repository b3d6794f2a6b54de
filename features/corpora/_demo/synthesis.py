"""From the plan of the demo corpus to its audio files: 16 kHz, mono, 16 bit, FLAC.

One fresh process speaks all words in order; after that utterances do not depend on each other and
are finished on all cores. What chance adds comes from the seed and the utterance's number alone.

Notation: T samples at `SAMPLE_RATE_HZ`.
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
from features.corpora._demo.prosody import SAMPLE_RATE_HZ, shape
from features.corpora._demo.sounds import SOUNDS, Throat
from features.corpora._demo.texts import spoken
from features.corpora._demo.voices import STYLES, Style
from features.process.terminal import progress
from features.process.workers import WorkerPool

Floats = NDArray[np.float64]
Samples = NDArray[np.int16]
LEVEL_DB = -27.0  # of neutral speech, relative to full scale
SOUND_DB = {"laugh": -24.0, "sob": -28.0, "sigh": -30.0, "gasp": -26.0}
NOISE_DB = -66.0  # of the room: digital silence would be a trace of how a file was made
PEAK = 0.89
EDGE_SECONDS, GAP_SECONDS, SHORTEST_SECONDS = 0.1, 0.08, 1.05
MOST_WORKERS = 8  # more take longer to start than they save
_UP, _DOWN = 320, 441  # 22 050 Hz to 16 000 Hz


def synthesise(planned: Sequence[Planned], seed: int, folder: Path) -> None:
    """Write `<id>.flac` below `folder` for each utterance.

    It starts processes afresh, so a script that calls it needs `if __name__ == "__main__":`.

    Raises:
        HeronryError: If espeak-ng is not there or fails.
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
    content = io.BytesIO()  # of a full disk soundfile itself says nothing that can be understood
    soundfile.write(content, samples, SAMPLE_RATE_HZ, subtype="PCM_16", format="FLAC")
    path.write_bytes(content.getbuffer())


def render(planned: Planned, plain: Samples | None, rng: np.random.Generator) -> Samples:
    """One utterance: words, sound, silences and a quiet room.

    Args:
        planned: What it is to be.
        plain: The words as espeak-ng speaks them, `[samples]` at 22 050 Hz; None without words.
        rng: Its own chance: how strong the style is, jitter, breath, noise.

    Returns:
        `[T]` at `SAMPLE_RATE_HZ`.
    """
    style, speaker = _today(planned, rng), planned.speaker
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


def _today(planned: Planned, rng: np.random.Generator) -> Style:
    """The style with the small differences between one utterance and the next."""
    style = STYLES[planned.label if planned.audio_cue else "neutral"]
    style = style.scaled(rng.uniform(0.9, 1.15))
    return dataclasses.replace(
        style,
        pitch=style.pitch + rng.normal(0.0, 0.5),
        rate=style.rate * rng.uniform(0.96, 1.04),
        gain_db=style.gain_db + rng.normal(0.0, 0.7),
    )


def _trimmed(wave: Floats) -> Floats:
    """Without the silence that espeak-ng leaves at both ends."""
    loud = np.flatnonzero(np.abs(wave) > 0.005)
    return wave[max(0, loud[0] - 220) : loud[-1] + 220] if len(loud) else wave


def _levelled(wave: Floats, db: float) -> Floats:
    return np.asarray(wave * 10 ** (db / 20) / (np.sqrt(np.mean(wave**2)) + 1e-12))


def _silence(seconds: float) -> Floats:
    return np.zeros(round(seconds * SAMPLE_RATE_HZ))
