"""Speakers of the demo corpus, and how each emotion changes the voice.

Semitones, decibels and factors are relative to the same speaker's neutral voice. The values are
ours, exaggerated after what surveys of vocal emotion agree on (Scherer 2003,
doi:10.1016/S0167-6393(02)00084-5): raised pitch, range and rate for arousal, a darker and slower
voice for sadness.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass


@dataclass(frozen=True)
class Speaker:
    """A synthetic speaker.

    Attributes:
        id: Unique in the corpus.
        gender: female or male: the kind of espeak-ng voice.
        split: The one split this speaker occurs in.
        voice: espeak-ng language and voice variant.
        pitch_hz: Geometric mean of the fundamental frequency when neutral.
        formant: Factor on all formants of the voice variant.
        rate: Factor on the speaking rate.
    """

    id: str
    gender: str
    split: str
    voice: str
    pitch_hz: float
    formant: float
    rate: float


@dataclass(frozen=True)
class Style:
    """Change of a neutral voice by an emotion; the defaults change nothing.

    Attributes:
        pitch: Shift of the mean pitch in semitones.
        contour: Semitones added along the utterance, evenly spaced from its start to its end.
        range: Factor on the excursions of pitch about its mean.
        step: Semitones by which pitch alternates about its mean, every `STEP_SECONDS`.
        rate: Factor on the speaking rate.
        gain_db: Change of the level.
        tilt_db: Change of the spectrum per octave above 500 Hz; below zero is darker.
        formant: Factor on all formants.
        breath: Share of the periodic part that becomes noise, 0 to 1.
        nasal_db: Depth of a trough at 900 Hz, as an open nose cuts.
        tremor_hz: Rate of a tremor of pitch and level.
        tremor: Its depth in semitones.
        tremor_db: Its depth in decibels.
        jitter: Standard deviation in semitones of pitch from frame to frame, as in a creak.
        sound: Non-verbal sound that goes with the emotion, if any.
    """

    pitch: float = 0.0
    contour: tuple[float, ...] = (0.0,)
    range: float = 1.0
    step: float = 0.0
    rate: float = 1.0
    gain_db: float = 0.0
    tilt_db: float = 0.0
    formant: float = 1.0
    breath: float = 0.0
    nasal_db: float = 0.0
    tremor_hz: float = 0.0
    tremor: float = 0.0
    tremor_db: float = 0.0
    jitter: float = 0.0
    sound: str | None = None

    def scaled(self, strength: float) -> Style:
        """Scale the strength of the style: weaker below 1, stronger above."""
        shifts = (
            "pitch",
            "step",
            "gain_db",
            "tilt_db",
            "nasal_db",
            "tremor",
            "tremor_db",
            "jitter",
        )
        changed = {name: getattr(self, name) * strength for name in shifts}
        changed |= {name: getattr(self, name) ** strength for name in ("range", "rate", "formant")}
        contour = tuple(point * strength for point in self.contour)
        return dataclasses.replace(self, contour=contour, **changed)


STEP_SECONDS = 0.2

STYLES: dict[str, Style] = {
    "sad": Style(
        pitch=-3.0, contour=(1.0, 0.0, -3.0), range=0.4, rate=0.8, gain_db=-7.0, tilt_db=-5.0,
        breath=0.25, sound="sob",
    ),
    "neutral": Style(),
    "disgusted": Style(
        pitch=-4.0, contour=(2.0, -2.0), range=0.8, rate=0.78, gain_db=1.0, formant=0.88,
        nasal_db=18.0, jitter=1.2,
    ),
    "surprised": Style(
        pitch=6.0, contour=(-5.0, -3.0, 2.0, 10.0), range=2.0, rate=0.88, gain_db=4.0, tilt_db=-3.0,
        formant=0.94,
    ),
    "angry": Style(
        pitch=1.5, contour=(5.0, 0.0, -5.0), range=1.5, rate=1.2, gain_db=9.0, tilt_db=6.0,
        jitter=0.5,
    ),
    "happy": Style(
        pitch=4.5, contour=(0.0, 3.0, -1.0, 3.0, 0.0), range=1.8, rate=1.12, gain_db=4.0,
        tilt_db=2.5, formant=1.1, sound="laugh",
    ),
    "other": Style(step=2.5, range=0.1, rate=0.9, gain_db=-2.0, sound="sigh"),
    "fearful": Style(
        pitch=7.0, range=0.6, rate=1.2, gain_db=-2.0, breath=0.6, tremor_hz=7.0, tremor=1.2,
        tremor_db=7.0, sound="gasp",
    ),
}  # fmt: skip

SPEAKERS: tuple[Speaker, ...] = (
    Speaker("f01", "female", "train", "en-us+f1", 190.0, 1.00, 1.00),
    Speaker("m01", "male", "train", "en-us+m1", 105.0, 1.00, 1.04),
    Speaker("f02", "female", "train", "en+f3", 205.0, 1.03, 1.03),
    Speaker("m02", "male", "train", "en-us+m2", 118.0, 1.04, 0.98),
    Speaker("f03", "female", "train", "en-us+f4", 182.0, 0.97, 0.97),
    Speaker("m03", "male", "train", "en+m4", 112.0, 0.97, 1.02),
    Speaker("f04", "female", "train", "en-us-nyc+f2", 212.0, 1.02, 1.05),
    Speaker("m04", "male", "train", "en-us-nyc+m6", 124.0, 1.02, 1.00),
    Speaker("f05", "female", "train", "en-us+linda", 198.0, 0.98, 1.00),
    Speaker("m05", "male", "train", "en-gb-scotland+m7", 100.0, 0.98, 0.96),
    Speaker("f06", "female", "valid", "en-gb-scotland+f1", 194.0, 1.03, 1.02),
    Speaker("m06", "male", "valid", "en-us+Lee", 109.0, 1.02, 1.00),
    Speaker("f07", "female", "valid", "en-us+f5", 208.0, 0.98, 0.99),
    Speaker("m07", "male", "valid", "en+max", 120.0, 0.98, 1.03),
    Speaker("f08", "female", "test", "en-us+f2", 200.0, 0.99, 1.01),
    Speaker("m08", "male", "test", "en-us+m3", 114.0, 1.03, 1.01),
    Speaker("f09", "female", "test", "en+aunty", 186.0, 1.02, 0.98),
    Speaker("m09", "male", "test", "en-us-nyc+Andy", 103.0, 0.99, 1.02),
)
