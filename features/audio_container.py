"""What an audio file promises against what it holds.

A decoder plays what is left of a file that was cut short, and skips what is damaged, without a
word. Containers say enough to notice: WAV and AIFF how many bytes of samples follow, MP3 (in the
Xing header of its first frame) how many bytes there are in all, Ogg which of its pages is the last,
and a checksum of each. FLAC needs no look from here: its decoder refuses what is incomplete.

Not noticed: an MP3 without a Xing header that ends between two frames, a WAV whose recorder could
not go back to write its length, and other containers (AU, W64, CAF).

Formats: RIFF and EBU Tech 3306 (RF64), AIFF-C, ISO 11172-3 and 13818-3 (MPEG frames), RFC 3533
(Ogg), id3.org (ID3v2).
"""

from __future__ import annotations

import itertools
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

# By how much a length may be wrong: headers written carelessly count themselves, too.
SLACK_SECONDS = 0.01
# Recorders that write into a pipe leave one of several large sizes in the header.
_UNKNOWN_SIZE = 0x7FFF0000
_CHUNKED = (b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM")
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_ALL_BITS = 0xFFFFFFFF
_KBITS = {  # of layer III, by index
    1: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES_HZ = (44_100, 48_000, 32_000)


def find_fault(file: BinaryIO, seconds: float | None) -> str | None:
    """Why a file is not whole; None if nothing says so.

    Args:
        file: From its beginning; left anywhere.
        seconds: Duration according to the decoder; None if that refused the file.
    """
    _skip_id3(file)
    begin, magic = file.tell(), file.read(4)
    file.seek(begin)
    if magic in _CHUNKED:
        return _chunks_fault(file, seconds)
    if magic == b"OggS":
        return _ogg_fault(file, seconds)
    if seconds is not None and _Frame.of(magic):
        return _mp3_fault(file, seconds)
    return None


def _skip_id3(file: BinaryIO) -> None:
    file.seek(0)
    head = file.read(10)
    if head[:3] != b"ID3" or len(head) < 10:
        file.seek(0)
        return
    size = 0
    for byte in head[6:]:
        size = size << 7 | byte & 0x7F
    footer = 10 if head[5] & 0x10 else 0
    file.seek(10 + size + footer)


def _size(file: BinaryIO) -> int:
    here = file.tell()
    size = file.seek(0, os.SEEK_END)
    file.seek(here)
    return size


def _chunks_fault(file: BinaryIO, seconds: float | None) -> str | None:
    order = ">" if file.read(12)[:4] in (b"RIFX", b"FORM") else "<"
    long_size: int | None = None
    while len(head := file.read(8)) == 8:
        name, size = struct.unpack(f"{order}4sI", head)
        begin = file.tell()
        if name == b"ds64":  # RF64: the sizes that 32 bits cannot hold
            long_size = int.from_bytes(file.read(16)[8:], "little")
        elif name in (b"data", b"SSND"):
            if size >= _UNKNOWN_SIZE:
                size = long_size or 0
            return _short(_size(file) - begin, size, seconds)
        file.seek(begin + size + size % 2)
    return None


def _short(held: int, promised: int, seconds: float | None) -> str | None:
    """The fault of a file with `held` of `promised` bytes of samples, which last `seconds`."""
    if held >= promised:
        return None
    if not seconds or held <= 0:
        return "ends before its first sample: it is truncated"
    whole = seconds * promised / held
    if whole - seconds <= SLACK_SECONDS:
        return None
    return f"ends after {seconds:.3f} s of {whole:.3f} s: it is truncated"


def _ogg_fault(file: BinaryIO, seconds: float | None) -> str | None:
    after = "" if seconds is None else f" after {seconds:.3f} s"
    following: dict[int, int] = {}  # by stream: the number that its next page must have
    while head := file.read(27):
        if head[:4] != b"OggS"[: len(head)]:
            if following:
                return f"is no Ogg page at byte {file.tell() - len(head)}: it is damaged"
            break  # what was appended to the file after its last page
        lacing = file.read(head[26]) if len(head) == 27 else b""
        body = file.read(sum(lacing))
        if len(head) < 27 or len(lacing) < head[26] or len(body) < sum(lacing):
            return f"ends{after} within an Ogg page: it is truncated"
        _, _, flags, _, stream, number, checksum, _ = struct.unpack("<4sBBqIIIB", head)
        expected = number if flags & 2 else following.get(stream)
        if number != expected or _ogg_checksum(head, lacing + body) != checksum:
            return f"has a damaged or missing Ogg page before page {number}: it is damaged"
        following[stream] = number + 1
        if flags & 4:
            del following[stream]
    return f"ends{after} without an end-of-stream page: it is truncated" if following else None


def _ogg_checksum(head: bytes, rest: bytes) -> int:
    """CRC-32 of RFC 3533: zlib's polynomial, most significant bit first, nothing inverted.

    zlib takes the least significant bit first, so bytes and result are mirrored; its two inversions
    are undone by starting from and ending with all bits set.
    """
    page = (head[:22] + bytes(4) + head[26:] + rest).translate(_REVERSED)
    mirrored = zlib.crc32(page, _ALL_BITS) ^ _ALL_BITS
    return int(f"{mirrored:032b}"[::-1], 2)


@dataclass(frozen=True)
class _Frame:
    """A frame of MPEG layer III: its length in bytes, and what it decodes to."""

    length: int
    samples: int
    rate_hz: int

    @classmethod
    def of(cls, head: bytes) -> _Frame | None:
        """The frame that these four bytes begin; None if they begin none."""
        if len(head) < 4 or head[0] != 0xFF or head[1] & 0xE6 != 0xE2:
            return None
        coded = head[1] >> 3 & 3  # 0: MPEG 2.5, 2: MPEG 2, 3: MPEG 1
        index, rate = head[2] >> 4, head[2] >> 2 & 3
        if coded == 1 or index in (0, 15) or rate == 3:  # reserved, or of free length
            return None
        version = 1 if coded == 3 else 2
        rate_hz = _RATES_HZ[rate] // {3: 1, 2: 2, 0: 4}[coded]
        samples = 1152 // version
        padding = head[2] >> 1 & 1
        return cls(samples * 125 * _KBITS[version][index] // rate_hz + padding, samples, rate_hz)


def _mp3_fault(file: BinaryIO, seconds: float) -> str | None:
    begin = file.tell()
    promised = _xing_bytes(file.read(64))
    if promised is not None and _size(file) - begin >= promised:
        return None
    file.seek(begin)
    frames = list(_mp3_frames(file))
    if not frames:
        return "ends within its first frame: it is truncated"
    frame_seconds = frames[0].samples / frames[0].rate_hz
    decoded = sum(frame.samples / frame.rate_hz for frame in frames)
    if promised is not None:  # then the first frame holds the header and no samples
        decoded -= frame_seconds
        fault = f"ends after {decoded:.3f} s of {seconds:.3f} s: it is truncated"
        return fault if decoded < seconds else None
    # The decoder took the length from the first frame's bit rate, and cuts off what is beyond.
    if abs(decoded - seconds) <= 2 * frame_seconds:
        return None
    return (
        f"is an MP3 without a Xing header, {seconds:.3f} s by its size but {decoded:.3f} s by its "
        "frames, so that no decoder knows its end: convert it to WAV or FLAC"
    )


def _xing_bytes(begin: bytes) -> int | None:
    """Bytes of the whole MP3 according to its first frame; None where that does not say."""
    place = max(begin.find(b"Xing"), begin.find(b"Info"))
    if place < 0 or len(begin) < place + 16:
        return None
    flags, _, size = struct.unpack(">III", begin[place + 4 : place + 16])
    return size if flags & 3 == 3 and size else None


def _mp3_frames(file: BinaryIO) -> Iterator[_Frame]:
    begin, size = file.tell(), _size(file)
    for _ in itertools.count():
        frame = _Frame.of(file.read(4))
        if frame is None or begin + frame.length > size:
            return
        yield frame
        begin += frame.length
        file.seek(begin)
