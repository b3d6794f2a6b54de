"""An uploaded clip: kept, checked, and drawn as a waveform with its pitch.

Shapes: P points of the waveform, T frames of the pitch.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import BinaryIO

import numpy as np
import soundfile

from features.audio.read import audio_seconds, read_audio
from features.backbone.entry import BackboneEntry, backbone_entry
from features.corpus.utterance import Utterance
from features.errors import HeronryError, UtteranceError
from features.stream import StreamSpec
from pipeline.serve.limits import Limits
from pipeline.serve.problems import Refused

POINTS = 800  # of a waveform
# First bytes of what is decoded, and of a tag that may come before. libsndfile reads more formats,
# whose decoders no stranger should reach.
FORMATS = (b"RIFF", b"fLaC", b"OggS", b"\xff\xfb", b"\xff\xf3", b"\xff\xf2", b"\xff\xfa")
TAG = b"ID3"
# Samples of all channels in a second, on average: 96 kHz in stereo. A minute of silence in eight
# channels of 655 kHz is 0.3 MB of FLAC, and decodes to 1.3 GB.
SAMPLES_A_SECOND = 192_000
EXPECTED = "a WAV, FLAC, Ogg or MP3 file"
# Of a model without bins: DIO is 60 times faster than real time. Bin 0: unvoiced.
DIO = {"kind": "f0", "method": "dio", "unvoiced": "bin0"}


@dataclass(frozen=True)
class Pitch:
    """Bins of the fundamental frequency (`features.backbones.f0`).

    Attributes:
        of: Slot that reads them, or empty where the model reads none.
        bins: Number of bins.
        f_min: Frequency of bin 1, in Hz.
        f_max: Frequency of the last bin, in Hz.
        hop_seconds: Seconds from one frame to the next.
        starts: Seconds at which each track begins.
        tracks: Bins `[T]` of each piece of the clip.
    """

    of: str
    bins: int
    f_min: float
    f_max: float
    hop_seconds: float
    starts: list[float]
    tracks: list[list[int]]


@dataclass(frozen=True)
class Clip:
    """What is drawn of a clip.

    Attributes:
        seconds: Duration.
        lows: `[P]` lowest sample of each point, full scale at 1.
        highs: `[P]` highest sample.
        pitch: Its pitch; None: it is too short to have one.
    """

    seconds: float
    lows: list[float]
    highs: list[float]
    pitch: Pitch | None


def keep(source: BinaryIO, path: Path, limits: Limits) -> float:
    """Write an upload to a file, and check it without decoding it.

    Returns:
        Its duration in seconds.

    Raises:
        Refused: If it is no audio of a known format, or too long.
    """
    with path.open("wb") as file:
        shutil.copyfileobj(source, file)
    with path.open("rb") as file:
        known = _begin(file).startswith(FORMATS)
    if not known:
        raise Refused(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "a file of another format",
            EXPECTED,
            "convert it, such as by `ffmpeg -i FILE clip.wav`",
        )
    try:
        seconds = audio_seconds(path)
    except HeronryError as error:
        reason = error.reason if isinstance(error, UtteranceError) else "the file cannot be read"
        raise Refused(
            HTTPStatus.UNPROCESSABLE_ENTITY, reason, f"{EXPECTED} that is whole", "save it again"
        ) from error
    if seconds > limits.seconds:
        raise Refused(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"a clip of {seconds:.1f} s",
            f"at most {limits.seconds:g} s",
            "cut it, or start the server with a larger `--max-seconds`",
        )
    header = soundfile.info(str(path))
    if header.frames * header.channels > limits.seconds * SAMPLES_A_SECOND:
        raise Refused(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"{header.channels} channels of {header.samplerate} Hz",
            f"at most {limits.seconds:g} s of two channels of {SAMPLES_A_SECOND // 2} Hz",
            "convert it, such as by `ffmpeg -i FILE -ac 1 -ar 16000 clip.wav`",
        )
    return seconds


def _begin(file: BinaryIO) -> bytes:
    """First bytes of a file, behind the tags at its beginning (https://id3.org/id3v2.3.0)."""
    head = file.read(10)
    while head.startswith(TAG) and len(head) == 10:
        # Four bytes of seven bits.
        size = sum(
            (each & 127) << shift for each, shift in zip(head[6:], (21, 14, 7, 0), strict=True)
        )
        file.seek(size, os.SEEK_CUR)
        head = file.read(10)
    return head


def drawn(path: Path, seconds: float, pitch: Pitch | None) -> Clip:
    """Waveform and pitch of a clip.

    Args:
        path: The file.
        seconds: Its duration.
        pitch: Bins that the model has read; None: they are estimated.
    """
    try:
        samples = read_audio(path)
    except UtteranceError:  # its row says why
        return Clip(seconds, [], [], None)
    count = min(POINTS, len(samples))
    edges = np.arange(count) * len(samples) // count
    lows, highs = np.minimum.reduceat(samples, edges), np.maximum.reduceat(samples, edges)
    return Clip(seconds, _rounded(lows), _rounded(highs), pitch or _estimated(path))


def pitch_of(
    slot: str, entry: BackboneEntry, spec: StreamSpec, starts: list[float], tracks: list[list[int]]
) -> Pitch:
    """Bins that an entry of the kind `f0` has computed.

    Args:
        slot: Slot of the model that reads them, or empty.
        entry: The entry.
        spec: Type of its frames, which are bins.
        starts: Seconds at which each track begins.
        tracks: Bins `[T]` of each piece of the clip.
    """
    options = entry.keywords()
    assert spec.bins is not None
    assert spec.hop_seconds is not None
    f_min, f_max = options["f_min"], options["f_max"]
    return Pitch(slot, spec.bins, f_min, f_max, spec.hop_seconds, starts, tracks)


def _estimated(path: Path) -> Pitch | None:
    entry = backbone_entry("f0", DIO)
    backbone = entry.build()
    try:
        values = backbone.prepare([Utterance("clip", audio=str(path))]).tensors["values"]
    except UtteranceError:
        return None
    return pitch_of("", entry, backbone.spec, [0.0], [values[0].tolist()])


def _rounded(values: np.ndarray[tuple[int], np.dtype[np.float32]]) -> list[float]:
    return [round(each, 4) for each in values.astype(float).tolist()]
