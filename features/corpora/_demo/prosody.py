"""Prosody of the demo corpus: analysis by WORLD, modification, synthesis.

WORLD (Morise, Yokomori and Ozawa 2016, doi:10.1587/transinf.2015EDP7457) represents speech by
pitch, spectral envelope and aperiodicity, frame by frame. Neutral speech is processed in the same
way, so that artefacts of the method are no cue to the emotion.

Shapes: N frames of `FRAME_SECONDS`, F bins from 0 Hz to half the sample rate.
"""

from __future__ import annotations

import importlib
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np

from features.corpora._demo.sounds import SAMPLE_RATE_HZ, Floats
from features.corpora._demo.voices import STEP_SECONDS, Speaker, Style

FRAME_SECONDS = 0.008  # usually 5 ms; this takes two thirds of the time
LONGEST_SECONDS = 1.8  # upper limit of the words' duration
_FLOOR_HZ, _CEILING_HZ = 60.0, 500.0
_TILT_HZ = 500.0  # frequency that a tilt leaves unchanged
_NASAL_HZ, _NASAL_OCTAVES = 900.0, 0.45


@dataclass(frozen=True)
class Frames:
    """Speech as WORLD represents it.

    Attributes:
        log_hz: `[N]` natural logarithm of the pitch, continued through unvoiced frames.
        voiced: `[N]` 1 where voiced, else 0.
        envelope: `[N, F]` power spectrum.
        aperiodicity: `[N, F]` share of noise, 0 to 1.
    """

    log_hz: Floats
    voiced: Floats
    envelope: Floats
    aperiodicity: Floats


def shape(speech: Floats, speaker: Speaker, style: Style, rng: np.random.Generator) -> Floats:
    """Give plain speech the voice of a speaker and the prosody of a style.

    Args:
        speech: `[T]` at `SAMPLE_RATE_HZ`, between -1 and 1.
        speaker: Sets pitch, formants and rate.
        style: Relative to the speaker's neutral voice.
        rng: Source of jitter.

    Returns:
        `[T']` at `SAMPLE_RATE_HZ`, of any level.
    """
    frames = _analyse(speech)
    seconds = len(frames.voiced) * FRAME_SECONDS / (speaker.rate * style.rate)
    count = round(min(seconds, LONGEST_SECONDS) / FRAME_SECONDS)
    frames = _bend(_stretch(frames, count), speaker, style, rng)
    hz = np.exp(frames.log_hz) * (frames.voiced > 0.5)
    parts = (np.ascontiguousarray(part) for part in (frames.envelope, frames.aperiodicity))
    return np.asarray(_world().synthesize(hz, *parts, SAMPLE_RATE_HZ, 1000 * FRAME_SECONDS))


def _analyse(speech: Floats) -> Frames:
    world = _world()
    options = {"f0_floor": _FLOOR_HZ, "f0_ceil": _CEILING_HZ, "frame_period": 1000 * FRAME_SECONDS}
    rough, times = world.dio(speech, SAMPLE_RATE_HZ, **options)
    hz = world.stonemask(speech, rough, times, SAMPLE_RATE_HZ)
    envelope = world.cheaptrick(speech, hz, times, SAMPLE_RATE_HZ)
    aperiodicity = world.d4c(speech, hz, times, SAMPLE_RATE_HZ)
    voiced = np.flatnonzero(hz > 0)
    log_hz = np.full(len(hz), np.log(100.0))
    if len(voiced):
        log_hz = np.interp(np.arange(len(hz)), voiced, np.log(hz[voiced]))
    return Frames(log_hz, (hz > 0).astype(float), envelope, aperiodicity)


def _stretch(frames: Frames, count: int) -> Frames:
    """The same speech in `count` frames: slower or faster, with pitch and formants unchanged."""
    position = np.linspace(0, len(frames.voiced) - 1, count)
    low = np.floor(position).astype(int)
    high = np.minimum(low + 1, len(frames.voiced) - 1)
    part = position - low

    def between(values: Floats) -> Floats:
        weight = part[:, None] if values.ndim > 1 else part
        return np.asarray(values[low] * (1 - weight) + values[high] * weight)

    return Frames(*(between(values) for values in vars(frames).values()))


def _bend(frames: Frames, speaker: Speaker, style: Style, rng: np.random.Generator) -> Frames:
    count, bins = frames.envelope.shape
    times: Floats = np.arange(count) * np.float64(FRAME_SECONDS)
    semitones = _pitch(frames, times, style, rng)
    log_hz = np.asarray(np.log(speaker.pitch_hz) + semitones * np.log(2) / 12)
    # Bin k takes the value of bin k / f: that moves the formants up by the factor f.
    source = np.minimum(np.arange(bins) / (speaker.formant * style.formant), bins - 1)
    low = np.floor(source).astype(int)
    part, high = source - low, np.minimum(low + 1, bins - 1)
    db = _colour(bins, style)[None, :]
    db = db + style.tremor_db * np.sin(2 * np.pi * style.tremor_hz * times)[:, None]
    envelope = frames.envelope[:, low] * (1 - part) + frames.envelope[:, high] * part
    noise = frames.aperiodicity[:, low] * (1 - part) + frames.aperiodicity[:, high] * part
    noise = 1 - (1 - noise) * (1 - style.breath)
    log_hz = np.clip(log_hz, np.log(_FLOOR_HZ), np.log(2 * _CEILING_HZ))
    return Frames(log_hz, frames.voiced, envelope * 10 ** (db / 10), np.clip(noise, 0.0, 1.0))


def _pitch(frames: Frames, times: Floats, style: Style, rng: np.random.Generator) -> Floats:
    """`[N]` semitones above the speaker's own pitch."""
    weight = frames.voiced if frames.voiced.any() else np.ones_like(frames.voiced)
    plain = (frames.log_hz - np.average(frames.log_hz, weights=weight)) * 12 / np.log(2)
    knots = np.linspace(0, 1, len(style.contour))
    contour = np.interp(np.linspace(0, 1, len(times)), knots, style.contour)
    step = style.step * np.where(np.floor(times / STEP_SECONDS) % 2 == 0, 1.0, -1.0)
    tremor = style.tremor * np.sin(2 * np.pi * style.tremor_hz * times)
    jitter = style.jitter * rng.standard_normal(len(times))
    return np.asarray(plain * style.range + style.pitch + contour + step + tremor + jitter)


def _colour(bins: int, style: Style) -> Floats:
    """`[F]` decibels that a style adds to the spectrum."""
    hz = np.maximum(np.linspace(0, SAMPLE_RATE_HZ / 2, bins), 100.0)
    tilt = style.tilt_db * np.log2(hz / _TILT_HZ)
    trough = np.exp(-0.5 * (np.log2(hz / _NASAL_HZ) / _NASAL_OCTAVES) ** 2)
    return np.asarray(tilt - style.nasal_db * trough)


def _world() -> Any:
    with warnings.catch_warnings():
        # pyworld imports pkg_resources, which warns of its deprecation.
        warnings.simplefilter("ignore")
        return importlib.import_module("pyworld")
