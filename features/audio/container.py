"""Detects truncated and damaged audio files by their containers.

Decoders silently play what is left of a truncated file, and skip damaged parts. Containers say
enough to detect both: WAV, AIFF, W64, CAF and AU give the number of bytes of samples, NIST SPHERE
the number of samples, MP3 (in the Xing header of its first frame) the number of bytes of the file,
Ogg a checksum of each page and which one is the last. FLAC's decoder refuses incomplete files.

Not detected: an MP3 without a Xing header that ends between two frames, a WAV whose recorder could
not seek back to write its length, and other containers. `features.audio.excess` finds what a file
holds beyond the length in its header.

Formats: RIFF and EBU Tech 3306 (RF64), AIFF-C, Sony's W64, Apple's CAF, Sun's AU, NIST SPHERE, ISO
11172-3 and 13818-3 (MPEG frames), RFC 3533 (Ogg), id3.org (ID3v2).
"""

from __future__ import annotations

import itertools
import os
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

# Tolerated error of a length: some encoders count their headers as samples.
SLACK_SECONDS = 0.01
# Recorders that write into a pipe cannot know the size, and leave one of several large numbers.
_UNKNOWN_SIZE = 0x7FFF0000
_UNKNOWN_LONG = 2**63 - 1  # of 64 bits: CAF has -1
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
_ALL_BITS = 0xFFFFFFFF
_KBITS = {  # kbit/s of layer III by MPEG version, and by the index in a frame's header
    1: (0, 32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320),
    2: (0, 8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160),
}
_RATES_HZ = (44_100, 48_000, 32_000)


def find_fault(file: BinaryIO, seconds: float | None) -> str | None:
    """Describe why a file is truncated or damaged; None if it appears complete.

    Args:
        file: The file; read from its beginning, its position afterwards is undefined.
        seconds: Duration according to the decoder; None if the decoder refused the file.
    """
    skip_id3(file)
    begin, magic = file.tell(), file.read(4)
    file.seek(begin)
    if magic == b"OggS":
        return _ogg_fault(file, seconds)
    if Frame.of(magic):
        return None if seconds is None else _mp3_fault(file, seconds)
    found = payload(file)
    return None if found is None else _short(_size(file) - found.begin, found.promised, seconds)


def skip_id3(file: BinaryIO) -> None:
    """Seek to the end of an ID3 tag, or to the beginning of a file without one."""
    file.seek(0)
    head = file.read(10)
    if head[:3] != b"ID3" or len(head) < 10:
        file.seek(0)
        return
    file.seek(10 + _id3_size(head))


def _size(file: BinaryIO) -> int:
    here = file.tell()
    size = file.seek(0, os.SEEK_END)
    file.seek(here)
    return size


@dataclass(frozen=True)
class _Chunk:
    name: bytes
    begin: int
    size: int
    end: int  # offset of the next chunk


@dataclass(frozen=True)
class Layout:
    """Layout of the chunk headers of a container.

    Attributes:
        order: Byte order of a size, as in `struct`.
        name_bytes: Length of a chunk's name, whose first four bytes identify it.
        size_bytes: Length of a chunk's size.
        inclusive: Whether the size includes the header.
        alignment: Alignment of the chunks, in bytes.
    """

    order: str
    name_bytes: int = 4
    size_bytes: int = 4
    inclusive: bool = False
    alignment: int = 2

    def chunk(self, file: BinaryIO) -> _Chunk | None:
        """Read the header of the chunk at the current position; None at the end of the file."""
        head = file.read(self.name_bytes + self.size_bytes)
        if len(head) < self.name_bytes + self.size_bytes:
            return None
        size = int.from_bytes(head[self.name_bytes :], "little" if self.order == "<" else "big")
        begin = file.tell()
        if self.inclusive:
            size = max(0, size - len(head))
        return _Chunk(head[:4], begin, size, begin + size + -size % self.alignment)


# By magic number: offset of the first chunk, and layout of the chunk headers.
_LAYOUTS = {
    b"RIFF": (12, Layout("<")),
    b"RF64": (12, Layout("<")),
    b"BW64": (12, Layout("<")),
    b"RIFX": (12, Layout(">")),
    b"FORM": (12, Layout(">")),
    b"caff": (8, Layout(">", size_bytes=8, alignment=1)),
    b"riff": (40, Layout("<", name_bytes=16, size_bytes=8, inclusive=True, alignment=8)),  # W64
}


@dataclass(frozen=True)
class Payload:
    """Where the samples of a file lie according to its header.

    Attributes:
        begin: Offset of the first sample, in bytes.
        promised: Number of bytes of samples; 0 where that is not known.
        layout: Layout of chunks that may follow; None for formats without chunks.
    """

    begin: int
    promised: int
    layout: Layout | None = None


def payload(file: BinaryIO) -> Payload | None:
    """Read where the samples lie, from the current position; None if the header does not say."""
    file_size = _size(file)
    start, magic = file.tell(), file.read(4)
    if magic == b".snd":
        begin, size = struct.unpack(">II", file.read(8).ljust(8, b"\0"))
        return Payload(start + begin, 0 if size >= _UNKNOWN_SIZE else size)
    if magic == b"NIST":
        file.seek(start)
        return _nist_payload(file, start)
    if magic not in _LAYOUTS:
        return None
    skipped, layout = _LAYOUTS[magic]
    file.seek(start + skipped)
    long_size = 0
    while chunk := layout.chunk(file):
        if chunk.name == b"ds64":  # RF64: the sizes that 32 bits cannot hold
            long_size = int.from_bytes(file.read(16)[8:], "little")
        elif chunk.name in (b"data", b"SSND"):
            unknown = chunk.size >= _UNKNOWN_SIZE and layout.size_bytes == 4
            unknown |= chunk.size >= _UNKNOWN_LONG
            return Payload(chunk.begin, long_size if unknown else chunk.size, layout)
        if chunk.end > file_size:
            break
        file.seek(chunk.end)
    return None


def _nist_payload(file: BinaryIO, start: int) -> Payload | None:
    """Parse a header of lines such as `NIST_1A`, `   1024`, `sample_count -i 32000`, `end_head`."""
    fields = {}
    lines = file.read(4096).decode("ascii", "replace").split("\n")
    for line in lines:
        name, _, value = line.partition(" -i ")
        if value.strip().isdigit():
            fields[name.strip()] = int(value)
        if line.strip() == "end_head":
            break
    try:
        frame = fields.get("channel_count", 1) * fields["sample_n_bytes"]
        return Payload(start + int(lines[1]), fields["sample_count"] * frame)
    except (KeyError, IndexError, ValueError):
        return None


def _short(held: int, promised: int, seconds: float | None) -> str | None:
    """Describe a file with `held` of `promised` bytes of samples, which last `seconds`."""
    if held >= promised:
        return None
    if not seconds or held <= 0:
        return "ends before its first sample: it is truncated"
    whole = seconds * promised / held  # the decoder's duration is that of the bytes held
    if whole - seconds <= SLACK_SECONDS:
        return None
    return f"ends after {seconds:.3f} s of {whole:.3f} s: it is truncated"


def _ogg_fault(file: BinaryIO, seconds: float | None) -> str | None:
    after = "" if seconds is None else f" after {seconds:.3f} s"
    following: dict[int, int] = {}  # number of the next page by stream, while a stream is open
    while head := file.read(27):
        if head[:4] != b"OggS"[: len(head)]:
            if following:
                return f"is no Ogg page at byte {file.tell() - len(head)}: it is damaged"
            break  # data behind the last page are no part of the sound
        lacing = file.read(head[26]) if len(head) == 27 else b""
        body = file.read(sum(lacing))
        if len(head) < 27 or len(lacing) < head[26] or len(body) < sum(lacing):
            return f"ends{after} within an Ogg page: it is truncated"
        _, _, flags, _, stream, number, checksum, _ = struct.unpack("<4sBBqIIIB", head)
        # Flags: 2 marks the first page of a stream, 4 its last one.
        expected = number if flags & 2 else following.get(stream)
        if number != expected or _ogg_checksum(head, lacing + body) != checksum:
            return f"has a damaged or missing Ogg page before page {number}: it is damaged"
        following[stream] = number + 1
        if flags & 4:
            del following[stream]
    return f"ends{after} without an end-of-stream page: it is truncated" if following else None


def _ogg_checksum(head: bytes, rest: bytes) -> int:
    """CRC-32 of RFC 3533: zlib's polynomial, most significant bit first, nothing inverted.

    zlib takes the least significant bit first and inverts the checksum before and after.
    """
    # Mirrored bytes make zlib see the bits in Ogg's order; all bits set cancel both inversions.
    page = (head[:22] + bytes(4) + head[26:] + rest).translate(_REVERSED)
    mirrored = zlib.crc32(page, _ALL_BITS) ^ _ALL_BITS
    return int(f"{mirrored:032b}"[::-1], 2)


@dataclass(frozen=True)
class Frame:
    """A frame of MPEG layer III.

    Attributes:
        length: Length in bytes.
        samples: Number of samples per channel that it decodes to.
        rate_hz: Sample rate.
    """

    length: int
    samples: int
    rate_hz: int

    @classmethod
    def of(cls, head: bytes) -> Frame | None:
        """Parse the four bytes of a frame's header; None if they are none."""
        # Eleven bits of synchronisation, two of the version, then 01 for layer III.
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
        # ISO 11172-3: length in bytes = samples / 8 * bit rate / sample rate; 1000 / 8 = 125.
        return cls(samples * 125 * _KBITS[version][index] // rate_hz + padding, samples, rate_hz)


def _mp3_fault(file: BinaryIO, seconds: float) -> str | None:
    begin = file.tell()
    promised = xing(file.read(64))
    if promised is not None and _size(file) - begin >= promised:
        return None
    file.seek(begin)
    frames = list(mp3_frames(file))
    if not frames:
        return "ends within its first frame: it is truncated"
    frame_seconds = frames[0].samples / frames[0].rate_hz
    decoded = sum(frame.samples / frame.rate_hz for frame in frames)
    if promised is not None:  # then the first frame holds the header and no samples
        decoded -= frame_seconds
        fault = f"ends after {decoded:.3f} s of {seconds:.3f} s: it is truncated"
        return fault if decoded < seconds else None
    # Without a Xing header the decoder estimates the duration from the first frame's bit rate.
    if abs(decoded - seconds) <= 2 * frame_seconds:
        return None
    return (
        f"is an MP3 without a Xing header, {seconds:.3f} s by its size but {decoded:.3f} s by its "
        "frames, so that no decoder knows its end: convert it to WAV or FLAC"
    )


def xing(begin: bytes) -> int | None:
    """Number of bytes of an MP3 according to the Xing header of its first frame; None without."""
    place = max(begin.find(b"Xing"), begin.find(b"Info"))
    if place < 0 or len(begin) < place + 16:
        return None
    flags, _, size = struct.unpack(">III", begin[place + 4 : place + 16])
    return size if flags & 3 == 3 and size else None


def mp3_frames(file: BinaryIO) -> Iterator[Frame]:
    """Iterate over the complete frames from the current position, past ID3 tags between them."""
    begin, size = file.tell(), _size(file)
    for _ in itertools.count():
        head = file.read(10)
        frame = Frame.of(head[:4])
        if frame is None and head[:3] == b"ID3" and len(head) == 10:
            begin += 10 + _id3_size(head)
        elif frame is None or begin + frame.length > size:
            return
        else:
            yield frame
            begin += frame.length
        file.seek(begin)


def _id3_size(head: bytes) -> int:
    """Number of bytes of an ID3v2 tag behind its header of ten bytes."""
    size = 0  # "synchsafe": four bytes of seven bits, so that no byte looks like a frame's sync
    for byte in head[6:]:
        size = size << 7 | byte & 0x7F
    return size + (10 if head[5] & 0x10 else 0)
