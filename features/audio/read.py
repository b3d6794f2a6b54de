"""Reads audio files: decoded, checked against their hash, as one channel at one sample rate.

libsndfile decodes (WAV, FLAC, OGG, MP3 and more) by content rather than by file name, block by
block, so that an hour takes only the memory of its result. soundfile is imported on first use.
Clipped samples stay as they are, and so do floats beyond full scale. Decoding, spans and what is
refused are one file, since all of them are about the file while it is open.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from features.audio.container import SLACK_SECONDS, find_fault
from features.audio.excess import find_excess
from features.audio.resampling import Part, needed, resamplable, resampled
from features.audio.silence import NOT_FINITE, Stretch, find_silence
from features.errors import HeronryError, ManifestError, UtteranceError
from features.files.reading import Identity, identity, open_regular, settled

SAMPLE_RATE_HZ = 16_000
WHOLE: Part = (0, None)
_BLOCK = 2**20  # samples decoded at a time, so that a wrong header cannot claim all the memory
_INSPECTED = 2**16  # samples at a time of an inspection: one block is lost where decoding fails
_MP3_FRAME = 1152  # samples; encoders may count the header frame as sound
_UNKNOWN_FRAMES = 2**62
_REMEMBERED = 2**16  # hashes kept by this process: 20 MB
_FFMPEG = ", which is not decoded here: convert it by `ffmpeg -i FILE FILE.wav`, and name that"
_OTHER_FORMATS = (  # offset, bytes in lower case, description
    (0, b"version https://git-lfs", "a git-LFS pointer, not audio: run `git lfs pull`"),
    (0, b"<!doctype", "a web page, not audio: download it again"),
    (0, b"<html", "a web page, not audio: download it again"),
    (4, b"ftyp", "MPEG-4 audio or video (m4a, mp4)" + _FFMPEG),
    (0, b"\x1ae\xdf\xa3", "WebM or Matroska" + _FFMPEG),
    (0, b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "Windows Media (wma, asf)" + _FFMPEG),
    (0, b"#!amr", "AMR" + _FFMPEG),
    (0, b"\xff\xf1", "AAC" + _FFMPEG),
    (0, b"\xff\xf9", "AAC" + _FFMPEG),
)
_AGAIN = (
    "if the corpus root is right, `prepare` must run again: "
    "dvc repro -f stages/prepare/dvc.yaml:prepare@<corpus>"
)

Samples = NDArray[np.float32]
# A file is hashed once per process, however many spans are read. Without a lock threads may hash
# a file twice; a lock would make them wait for each other's disk, and a fork would copy it locked.
_hashed: dict[Identity, str] = {}


@dataclass(frozen=True)
class AudioFacts:
    """Properties of an audio file, all of which was decoded.

    Attributes:
        seconds: Duration.
        sample_rate_hz: Samples per second and channel.
        channels: Number of channels.
        frames: Number of samples per channel.
        notices: Oddities, such as that it holds more than its header says.
        stretches: Stretches without usable sound.
    """

    seconds: float
    sample_rate_hz: int
    channels: int
    frames: int
    notices: tuple[str, ...]
    stretches: tuple[Stretch, ...]


def inspect_audio(file: BinaryIO, id: str) -> AudioFacts:
    """Decode all of an audio file, to find its properties and what is wrong with it.

    Args:
        file: The file; read from its beginning, its position afterwards is undefined.
        id: Utterance or file to name in errors.

    Raises:
        ManifestError: If the file cannot be read.
        UtteranceError: If it is no audio, holds no samples, or is truncated or damaged.
    """
    with _decoder(file, id, whole=True) as decoder:
        rate_hz, frames = decoder.samplerate, decoder.frames
        here, faults = 0, []

        def blocks() -> Iterator[Samples]:
            nonlocal here
            try:
                for block in _decoded(decoder, id, 0, frames, size=_INSPECTED):
                    yield block
                    here += len(block)
            except UtteranceError as error:
                faults.append(Stretch(here / rate_hz, frames / rate_hz, error.reason))

        flat = find_silence(blocks(), rate_hz)
        excess = find_excess(file, frames / rate_hz, decoder.format)
        return AudioFacts(
            seconds=frames / rate_hz,
            sample_rate_hz=rate_hz,
            channels=decoder.channels,
            frames=frames,
            notices=() if excess is None else (excess,),
            stretches=(*faults, *flat),
        )


def read_audio(
    path: Path | str,
    *,
    id: str | None = None,
    sample_rate_hz: int = SAMPLE_RATE_HZ,
    start: float | None = None,
    stop: float | None = None,
    part: Part = WHOLE,
    sha256: str | None = None,
) -> Samples:
    """Decode an audio file, or a span of it, to the mean of its channels at `sample_rate_hz`.

    A long recording is read part by part. No more is decoded than the part needs, but for MP3,
    whose frames have to be looked through from the beginning (0.4 ms for each second before).

    Args:
        path: The file.
        id: Utterance to name in errors; the file name by default.
        sample_rate_hz: Sample rate of the result.
        start: Beginning of the span in seconds; None for the beginning of the file.
        stop: End of the span in seconds; None, or beyond the end, for the end of the file.
        part: First sample of the result to return, and the one behind the last (None: to the end).
            They are those of the whole result, also at another rate, but for its last bits.
        sha256: Hash that the file must have. It is computed once per process, and again when the
            file's size, times or inode change.

    Returns:
        `[samples]`, full scale at 1.

    Raises:
        ManifestError: If the file is missing, or has another hash.
        UtteranceError: If it is no audio, is truncated, holds no samples (in the span) or values
            that are not finite, or ends before the part. For a span, or a later part, the container
            is not checked, since that would read all of a long recording for each of them.
    """
    return _joined(
        audio_blocks(
            path,
            id=id,
            sample_rate_hz=sample_rate_hz,
            start=start,
            stop=stop,
            part=part,
            sha256=sha256,
        )
    )


def audio_blocks(
    path: Path | str,
    *,
    id: str | None = None,
    sample_rate_hz: int = SAMPLE_RATE_HZ,
    start: float | None = None,
    stop: float | None = None,
    part: Part = WHOLE,
    sha256: str | None = None,
) -> Iterator[Samples]:
    """Decode as `read_audio`, in consecutive blocks of bounded size."""
    path, id = Path(path), id or Path(path).name
    # Of several parts, the first stands for all: a container is read as a whole.
    whole = start is None and stop is None and part[0] == 0
    with (
        _open(path) as file,
        _unchanged(file, path, sha256),
        _decoder(file, id, whole=whole) as decoder,
    ):
        rate_hz, (begin, end) = decoder.samplerate, _bounds(decoder, id, start, stop)
        first, last, extra = needed(rate_hz, sample_rate_hz, part, end - begin)
        if first >= last:
            raise UtteranceError(
                id, f"the audio ends before sample {part[0]} at {sample_rate_hz} Hz"
            )
        blocks: Iterable[Samples] = _mono(decoder, id, begin + first, begin + last)
        if rate_hz != sample_rate_hz:
            blocks = resampled(blocks, rate_hz, sample_rate_hz)
        yield from _between(blocks, extra, None if part[1] is None else extra + part[1] - part[0])


def audio_seconds(path: Path | str) -> float:
    """Duration of an audio file by its header, of which nothing is decoded.

    Raises:
        ManifestError: If it is missing.
        UtteranceError: If it is no audio, holds no samples, or is truncated.
    """
    with _open(Path(path)) as file, _decoder(file, Path(path).name, whole=True) as decoder:
        return float(decoder.frames / decoder.samplerate)


@contextlib.contextmanager
def _unchanged(file: BufferedReader, path: Path, sha256: str | None) -> Iterator[None]:
    """Check a file's hash before it is used, and again afterwards if it changed meanwhile."""
    if sha256 is None:
        yield
        return
    before = os.fstat(file.fileno())
    found = _hashed.get(identity(before))
    if found is None:
        found = _digest(file)
        if settled(before.st_mtime_ns, before.st_ctime_ns):
            if len(_hashed) >= _REMEMBERED:
                _hashed.clear()
            _hashed[identity(before)] = found
    if found != sha256:
        raise _changed(path, sha256)
    try:
        yield
    finally:  # hashed again, since a new hard link changes the inode's time and not the content
        if identity(os.fstat(file.fileno())) != identity(before) and _digest(file) != sha256:
            raise _changed(path, sha256)


def _digest(file: BufferedReader) -> str:
    file.seek(0)
    digest = hashlib.file_digest(file, "sha256").hexdigest()
    file.seek(0)
    return digest


def _changed(path: Path, sha256: str) -> ManifestError:
    return ManifestError(
        f"audio file {path} has changed since `prepare` (expected SHA-256 {sha256}): {_AGAIN}"
    )


def _bounds(decoder: Any, id: str, start: float | None, stop: float | None) -> tuple[int, int]:
    rate_hz, frames = decoder.samplerate, decoder.frames
    first = 0 if start is None else round(start * rate_hz)
    last = frames if stop is None else min(round(stop * rate_hz), frames)
    if not 0 <= first < last:
        raise UtteranceError(
            id,
            f"the span from {start} to {stop} s holds no samples of {frames / rate_hz:.3f} s",
        )
    return first, last


def _mono(decoder: Any, id: str, first: int, last: int) -> Iterator[Samples]:
    for block in _decoded(decoder, id, first, last):
        with np.errstate(invalid="ignore", over="ignore"):  # rejected below, not warned about
            mono = block.mean(axis=1, dtype=np.float32)
        if not np.isfinite(mono).all():
            raise UtteranceError(id, NOT_FINITE)
        yield mono


def _decoded(decoder: Any, id: str, first: int, last: int, size: int = _BLOCK) -> Iterator[Samples]:
    """Decode samples `first` to `last` in blocks `[block, channels]`."""
    rate_hz, here = decoder.samplerate, first
    try:
        if first:
            decoder.seek(first)
        while here < last:
            block = decoder.read(min(last - here, size), dtype="float32", always_2d=True)
            if not len(block):
                break
            here += len(block)
            yield block
    except RuntimeError as error:
        raise UtteranceError(id, f"the audio cannot be decoded ({_reason(error)})") from error
    if here == first:
        raise UtteranceError(id, "the audio holds no samples")
    # libsndfile ends early without an error where a file is truncated.
    slack = _MP3_FRAME if decoder.format == "MP3" else SLACK_SECONDS * rate_hz
    if here < last - slack:
        raise UtteranceError(
            id,
            f"the audio ends after {here / rate_hz:.3f} s of {last / rate_hz:.3f} s: it is "
            "truncated or damaged",
        )


def _between(blocks: Iterable[Samples], first: int, last: int | None) -> Iterator[Samples]:
    """Samples `first` to before `last` of the blocks."""
    here = 0
    for block in blocks:
        yield block[max(0, first - here) : None if last is None else max(0, last - here)]
        here += len(block)


def _joined(blocks: Iterable[Samples]) -> Samples:
    """Concatenate blocks in one array that grows in place: copies of an hour take 230 MB each."""
    whole = np.empty(0, np.float32)
    for block in blocks:
        end = len(whole)
        whole.resize(end + len(block), refcheck=False)
        whole[end:] = block
    return whole


def _open(path: Path) -> BufferedReader:
    try:
        return open_regular(path)
    except OSError as error:
        raise ManifestError(
            f"cannot read audio file {path} ({error.strerror}); expected it there since the "
            f"manifest lists it: {_AGAIN}"
        ) from error


@contextlib.contextmanager
def _decoder(file: BinaryIO, id: str, *, whole: bool) -> Iterator[Any]:
    try:
        with _opened(file, id, whole=whole) as decoder:
            yield decoder
    except OSError as error:
        raise ManifestError(
            f"the audio of utterance {id!r} cannot be read ({error.strerror}); expected a disk or "
            "network that gives it: start again once it does"
        ) from error


@contextlib.contextmanager
def _opened(file: BinaryIO, id: str, *, whole: bool) -> Iterator[Any]:
    soundfile = _soundfile()
    begin = file.read(32)
    file.seek(0)
    other = _other_content(begin)
    if other:
        raise UtteranceError(id, f"the file is {other}")
    source = _Source(file)
    try:
        decoder = soundfile.SoundFile(source)
    except (RuntimeError, TypeError) as error:  # TypeError: a name in .raw, which has no header
        source.check()
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
        try:
            yield decoder
        finally:
            source.check()


class _Source:
    """A file for libsndfile's callbacks, which keeps errors: cffi prints what they raise."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._error: OSError | None = None

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Seek as a file does; ignore offsets before the beginning, from damaged headers."""
        with contextlib.suppress(OSError, ValueError):
            self._file.seek(offset, whence)
        return self._file.tell()

    def tell(self) -> int:
        """Position, as of a file."""
        return self._file.tell()

    def read(self, count: int) -> bytes:
        """Read up to `count` bytes; none where the disk or the network fails."""
        try:
            return self._file.read(count)
        except OSError as error:
            self._error = error
            return b""

    def check(self) -> None:
        """Raise the error of a read, which is no fault of the file's content."""
        if self._error is not None:
            raise self._error


def _other_content(begin: bytes) -> str | None:
    """Describe a file of another format by its first bytes; None if it may be decodable."""
    if not begin:
        return "empty"
    found = (what for at, magic, what in _OTHER_FORMATS if begin[at:].lower().startswith(magic))
    return next(found, None)


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
            id,
            "the header does not say how long the audio is: write it again as a file, not a pipe",
        )


def _reason(error: Exception) -> str:
    # Without the rest of the message, which names the file object: it differs from run to run.
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
