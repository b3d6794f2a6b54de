"""Audio files: headers, hashes, and samples as one channel at one rate.

Decoding is libsndfile's (WAV, FLAC, OGG, MP3 and more), by content rather than by file name;
resampling is in `features.resampling`. soundfile is imported on first use. Clipped samples are kept
as they are, and so is what lies beyond full scale in a file of floats.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from features.audio_container import SLACK_SECONDS, find_fault
from features.errors import HeronryError, ManifestError, UtteranceError
from features.resampling import resamplable, resample

SAMPLE_RATE_HZ = 16_000
_BLOCK = 2**20  # samples: a header that promises too much must not ask for all the memory
_MP3_FRAME = 1152  # samples; an encoder may count its header among the frames
_UNKNOWN_FRAMES = 2**62
# A pointer file of git-LFS is text of about 130 bytes that begins like this.
_LFS_BEGIN = b"version https://git-lfs"
_AGAIN = (
    "if the corpus root is right, `prepare` must run again: "
    "dvc repro -f stages/prepare/dvc.yaml:prepare@<corpus>"
)


@dataclass(frozen=True)
class AudioInfo:
    """What the header of an audio file says.

    Attributes:
        seconds: Duration.
        sample_rate_hz: Samples per second and channel.
        channels: Number of channels.
        frames: Number of samples per channel.
    """

    seconds: float
    sample_rate_hz: int
    channels: int
    frames: int


def probe(path: Path | str, *, id: str | None = None) -> AudioInfo:
    """Read the header of an audio file.

    Args:
        path: The file.
        id: Utterance to name in errors; the file name by default.

    Raises:
        ManifestError: If the file is missing or unreadable.
        UtteranceError: If it is no audio, holds no samples, or is seen to be truncated.
    """
    path, id = Path(path), id or Path(path).name
    with _file(path) as file, _decoder(file, id, whole=True) as decoder:
        if decoder.format == "FLAC":
            _reach_the_end(decoder, id)
        return AudioInfo(
            seconds=decoder.frames / decoder.samplerate,
            sample_rate_hz=decoder.samplerate,
            channels=decoder.channels,
            frames=decoder.frames,
        )


def read_audio(
    path: Path | str,
    *,
    id: str | None = None,
    sample_rate_hz: int = SAMPLE_RATE_HZ,
    start: float | None = None,
    stop: float | None = None,
    sha256: str | None = None,
) -> NDArray[np.float32]:
    """Decode an audio file, or a span of it, to the mean of its channels at `sample_rate_hz`.

    Args:
        path: The file.
        id: Utterance to name in errors; the file name by default.
        sample_rate_hz: Rate of the result.
        start: Seconds at which to begin; None for the beginning.
        stop: Seconds at which to end, at most the end of the file; None for that.
        sha256: What the file must hash to. Not checked for a span, since that would read all of
            a long recording for each of its utterances.

    Returns:
        `[samples]`, full scale at 1.

    Raises:
        ManifestError: If the file is missing, or not the one that was hashed.
        UtteranceError: If it is no audio, is truncated, holds no samples (in the span) or values
            that are not finite. Whether a whole file is what its container promises is not asked
            for a span, as above.
    """
    path, id = Path(path), id or Path(path).name
    with _file(path) as file:
        source: BinaryIO = file
        whole = start is None and stop is None
        if whole:
            content = file.read()
            if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
                raise ManifestError(
                    f"audio file {path} has changed since `prepare` (expected SHA-256 {sha256}): "
                    f"{_AGAIN}"
                )
            source = io.BytesIO(content)
        with _decoder(source, id, whole=whole) as decoder:
            samples = _decode(decoder, id, start=start, stop=stop)
            rate_hz = decoder.samplerate
    if not np.isfinite(samples).all():
        raise UtteranceError(id, "the audio holds samples that are not finite")
    mono = samples.mean(axis=1, dtype=np.float32)
    return mono if rate_hz == sample_rate_hz else resample(mono, rate_hz, sample_rate_hz)


def _decode(
    decoder: Any, id: str, *, start: float | None, stop: float | None
) -> NDArray[np.float32]:
    rate_hz, frames = decoder.samplerate, decoder.frames
    first = 0 if start is None else round(start * rate_hz)
    last = frames if stop is None else min(round(stop * rate_hz), frames)
    if not 0 <= first < last:
        raise UtteranceError(
            id,
            f"the span from {start} to {stop} s holds no samples of {frames / rate_hz:.3f} s",
        )
    try:
        if first:
            decoder.seek(first)
        blocks = list(_blocks(decoder, last - first))
    except RuntimeError as error:
        raise UtteranceError(id, f"the audio cannot be decoded ({_reason(error)})") from error
    if not blocks:
        raise UtteranceError(id, "the audio holds no samples")
    samples = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
    slack = _MP3_FRAME if decoder.format == "MP3" else SLACK_SECONDS * rate_hz
    if len(samples) < last - first - slack:
        end = (first + len(samples)) / rate_hz
        raise UtteranceError(
            id,
            f"the audio ends after {end:.3f} s of {last / rate_hz:.3f} s: it is truncated or "
            "damaged",
        )
    return samples


def _blocks(decoder: Any, frames: int) -> Iterator[NDArray[np.float32]]:
    """`[block, channels]` until `frames` have been read or there are no more."""
    while frames > 0:
        block = decoder.read(min(frames, _BLOCK), dtype="float32", always_2d=True)
        if not len(block):
            return
        yield block
        frames -= len(block)


def _reach_the_end(decoder: Any, id: str) -> None:
    try:
        decoder.seek(decoder.frames - 1)
        decoder.read(1)
    except RuntimeError as error:
        seconds = decoder.frames / decoder.samplerate
        raise UtteranceError(
            id,
            f"the audio cannot be decoded up to its end at {seconds:.3f} s: it is truncated or "
            "damaged",
        ) from error


@contextlib.contextmanager
def _file(path: Path) -> Iterator[BinaryIO]:
    try:
        file = path.open("rb")
    except OSError as error:
        raise ManifestError(
            f"cannot read audio file {path} ({error.strerror}); expected it there since the "
            f"manifest lists it: {_AGAIN}"
        ) from error
    with file:
        yield file


@contextlib.contextmanager
def _decoder(file: BinaryIO, id: str, *, whole: bool) -> Iterator[Any]:
    soundfile = _soundfile()
    begin = file.read(len(_LFS_BEGIN))
    if begin == _LFS_BEGIN:
        raise UtteranceError(
            id, "the file is a git-LFS pointer, not audio: run `git lfs pull` where it came from"
        )
    if not begin:
        raise UtteranceError(id, "the file is empty")
    file.seek(0)
    try:
        decoder = soundfile.SoundFile(file)
    except (RuntimeError, TypeError) as error:  # TypeError: a name in .raw, which has no header
        fault = find_fault(file, None)
        reason = f"file {fault}" if fault else f"audio cannot be decoded ({_reason(error)})"
        raise UtteranceError(id, f"the {reason}") from error
    with decoder:
        _check_header(decoder, id)
        here = file.tell()
        fault = find_fault(file, decoder.frames / decoder.samplerate) if whole else None
        file.seek(here)
        if fault:
            raise UtteranceError(id, f"the file {fault}")
        if decoder.frames < 1:
            raise UtteranceError(id, "the audio holds no samples")
        yield decoder


def _check_header(decoder: Any, id: str) -> None:
    rate_hz = decoder.samplerate
    if not resamplable(rate_hz, SAMPLE_RATE_HZ):
        raise UtteranceError(
            id,
            f"the audio has a sample rate of {rate_hz} Hz, which cannot be resampled; expected a "
            f"usual one: convert it to {SAMPLE_RATE_HZ} Hz",
        )
    if decoder.frames > _UNKNOWN_FRAMES:
        raise UtteranceError(
            id, "the header does not say how long the audio is: write it anew as a file, not a pipe"
        )


def _reason(error: Exception) -> str:
    # The whole message names the file object, which differs from run to run.
    return str(getattr(error, "error_string", error)).strip().rstrip(".")


def _soundfile() -> Any:
    try:
        import soundfile
    except (ImportError, OSError) as error:
        raise HeronryError(
            f"soundfile, which decodes audio, cannot be imported ({error}); "
            "install it: python -m pip install soundfile"
        ) from error
    return soundfile
