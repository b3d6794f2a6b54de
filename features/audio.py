"""Audio files: headers, hashes, and samples as one channel at one rate.

Decoding is libsndfile's (WAV, FLAC, OGG, MP3 and more), by content rather than by file name;
resampling is torchaudio's windowed sinc with a kernel kept per pair of rates. soundfile and
torchaudio are imported on first use, so that `prepare` needs no torch.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from features.errors import HeronryError, ManifestError, UtteranceError

SAMPLE_RATE_HZ = 16_000
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
        UtteranceError: If it is no audio or holds no samples.
    """
    with _file(Path(path)) as file, _decoder(file, id or Path(path).name) as decoder:
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
        UtteranceError: If it is no audio, holds no samples (in the span) or values that are not
            finite.
    """
    path, id = Path(path), id or Path(path).name
    with _file(path) as file:
        source: BinaryIO = file
        if start is None and stop is None:
            content = file.read()
            if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
                raise ManifestError(
                    f"audio file {path} has changed since `prepare` (expected SHA-256 {sha256}): "
                    f"{_AGAIN}"
                )
            source = io.BytesIO(content)
        with _decoder(source, id) as decoder:
            samples = _decode(decoder, id, start=start, stop=stop)
            rate_hz = decoder.samplerate
    if not np.isfinite(samples).all():
        raise UtteranceError(id, "the audio holds samples that are not finite")
    mono = samples.mean(axis=1, dtype=np.float32)
    return mono if rate_hz == sample_rate_hz else _resample(mono, rate_hz, sample_rate_hz)


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
        decoder.seek(first)
        samples: NDArray[np.float32] = decoder.read(last - first, dtype="float32", always_2d=True)
    except RuntimeError as error:
        raise UtteranceError(id, f"the audio cannot be decoded ({_reason(error)})") from error
    if not len(samples):
        raise UtteranceError(id, "the audio holds no samples")
    return samples


def _resample(samples: NDArray[np.float32], from_hz: int, to_hz: int) -> NDArray[np.float32]:
    import torch

    with torch.inference_mode():
        resampled: NDArray[np.float32] = _resampler(from_hz, to_hz)(
            torch.from_numpy(samples)
        ).numpy()
    return resampled


@functools.lru_cache(maxsize=16)
def _resampler(from_hz: int, to_hz: int) -> Any:
    from features.torchaudio_cpu import torchaudio

    return torchaudio.transforms.Resample(from_hz, to_hz)


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
def _decoder(file: BinaryIO, id: str) -> Iterator[Any]:
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
    except RuntimeError as error:
        raise UtteranceError(id, f"the audio cannot be decoded ({_reason(error)})") from error
    with decoder:
        if decoder.frames < 1:
            raise UtteranceError(id, "the audio holds no samples")
        yield decoder


def _reason(error: RuntimeError) -> str:
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
