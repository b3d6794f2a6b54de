"""What an audio file holds beyond what a decoder plays of it.

A decoder stops where the header says that the sound ends, and after the first of several files that
were put into one, without a word: a recorder that wrote its length too early, or `cat`, loses the
rest. Containers tell: chunks after WAV's and AIFF's samples, the number of FLAC's last frame, MP3's
frames against the Xing header, Ogg's pages of a second stream.

Not noticed: an Ogg stream of a single page of sound whose page says less than it holds, and what
follows the samples of other containers (libsndfile plays that).

Formats: those of `features.audio_container`, RFC 9639 (FLAC), Sun's AU and Apple's CAF.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from features.audio_container import Frame, Payload, mp3_frames, payload, skip_id3

# What is written behind the sound: tags of ID3 and APE.
_TAGS = (b"TAG", b"ID3", b"APETAGEX", b"LYRICSBEGIN")
_HELD_AGAIN = (b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM", b"data", b"SSND", b"caff")
_FLAC = b"fLaC"
_STREAMINFO = b"\x00\x00\x00\x22"  # type and length of the block that comes first
_FLAC_TAIL = 2**20  # bytes from the end in which the last frame begins
_BLOCK = 2**20
_MP3_SLACK = 4  # frames: an encoder's delay and padding, which decoders cut off
_SLACK_SECONDS = 0.02


def find_excess(file: BinaryIO, seconds: float) -> str | None:
    """What of a file is not used, though it holds it; None if nothing says so.

    Args:
        file: From its beginning; left anywhere.
        seconds: Duration according to the decoder.
    """
    skip_id3(file)
    begin, magic = file.tell(), file.read(4)
    file.seek(begin)
    if magic == b"OggS":
        return _ogg_excess(file, seconds)
    if magic == _FLAC:
        return _flac_excess(file, seconds)
    if Frame.of(magic):
        return _mp3_excess(file, seconds)
    found = payload(file)
    return None if found is None else _chunks_excess(file, found, seconds)


def _told(seconds: float, held: float) -> str | None:
    if held - seconds <= _SLACK_SECONDS:
        return None
    return (
        f"its header says {seconds:.3f} s, but it holds {held:.3f} s: only the first "
        f"{seconds:.3f} s are used"
    )


def _chunks_excess(file: BinaryIO, found: Payload, seconds: float) -> str | None:
    if not found.promised:  # or the length is unknown, and everything is played
        return None
    rest = _after(file, found)
    return _told(seconds, seconds * (1 + rest / found.promised))


def _after(file: BinaryIO, found: Payload) -> int:
    """Bytes behind the samples that are neither chunks nor tags nor zeros."""
    size = file.seek(0, os.SEEK_END)
    here = found.begin + found.promised
    if found.layout is None:
        here = min(here, size)
    else:
        while here < size:
            file.seek(here)
            chunk = found.layout.chunk(file)
            if chunk is None or chunk.name in _HELD_AGAIN or chunk.end > size + 1:
                break
            if not all(32 <= byte < 127 for byte in chunk.name):
                break
            here = chunk.end
    file.seek(min(here, size))
    if file.read(12).startswith(_TAGS):
        return 0
    file.seek(min(here, size))
    return size - here if any(any(block) for block in _blocks(file)) else 0


def _blocks(file: BinaryIO) -> Iterator[bytes]:
    while block := file.read(_BLOCK):
        yield block


def _mp3_excess(file: BinaryIO, seconds: float) -> str | None:
    frames = mp3_frames(file)
    first = next(frames, None)  # mostly the Xing header, whose count of frames decoders believe
    if first is None:
        return None
    held = sum(frame.samples / frame.rate_hz for frame in frames)
    if held - seconds <= _MP3_SLACK * first.samples / first.rate_hz:
        return None
    return _told(seconds, held)


def _ogg_excess(file: BinaryIO, seconds: float) -> str | None:
    links, active, latest, last = 0, set[int](), 0, 0
    while len(head := file.read(27)) == 27 and head[:4] == b"OggS":
        _, _, flags, granule, stream, _, _, lacing = struct.unpack("<4sBBqIIIB", head)
        file.seek(sum(file.read(lacing)), os.SEEK_CUR)
        if flags & 2:
            links += not active  # several that begin together are one, multiplexed
            active.add(stream)
        if granule >= 0 and links == 1:
            latest, last = max(latest, granule), granule
        if flags & 4:
            active.discard(stream)
    if links > 1:
        return (
            f"it holds {links} Ogg streams one after the other: only the first of them, "
            f"{seconds:.3f} s, is used"
        )
    return _told(seconds, seconds * latest / last) if last else None


def _flac_excess(file: BinaryIO, seconds: float) -> str | None:
    begin = file.tell()
    info = _StreamInfo.read(file)
    if info is None or not info.samples:
        return None
    file.seek(begin + len(_FLAC))
    before = b""
    for block in _blocks(file):
        if _FLAC + _STREAMINFO in before + block:
            return (
                f"another FLAC stream follows in it: only the first one, {seconds:.3f} s, is used"
            )
        before = block[-len(_FLAC + _STREAMINFO) + 1 :]
    held = info.held(file)
    return None if held is None else _told(seconds, held / info.rate_hz)


@dataclass(frozen=True)
class _StreamInfo:
    """What a FLAC says of itself, and the constant bits of its frames' headers."""

    block: int
    rate_hz: int
    samples: int
    frame_head: bytes

    @classmethod
    def read(cls, file: BinaryIO) -> _StreamInfo | None:
        """From the beginning of the stream; leaves the file anywhere."""
        head = file.read(42)
        if len(head) < 42 or head[5:8] != _STREAMINFO[1:]:
            return None
        packed = int.from_bytes(head[18:26], "big")
        file.seek(-38, os.SEEK_CUR)
        last = False
        while not last:
            block = file.read(4)
            if len(block) < 4:
                return None
            last = bool(block[0] & 0x80)
            file.seek(int.from_bytes(block[1:], "big"), os.SEEK_CUR)
        frame_head = file.read(4)
        if len(frame_head) < 4 or frame_head[0] != 0xFF or frame_head[1] & 0xFE != 0xF8:
            return None
        block_size = int.from_bytes(head[8:10], "big")
        return cls(block_size, packed >> 44, packed & (1 << 36) - 1, frame_head)

    def held(self, file: BinaryIO) -> int | None:
        """Samples up to the end of the last frame; None if there is none to be seen."""
        size = file.seek(0, os.SEEK_END)
        file.seek(max(0, size - _FLAC_TAIL))
        tail = file.read()
        at = tail.rfind(self.frame_head[:2])
        while at >= 0:
            end = self._end(tail[at : at + 16])
            if end is not None:
                return end
            at = tail.rfind(self.frame_head[:2], 0, at)
        return None

    def _end(self, head: bytes) -> int | None:
        """Number of the sample behind the frame that begins so; None if none does."""
        if len(head) < 16 or (head[2] ^ self.frame_head[2]) & 0x0F:
            return None
        if (head[3] ^ self.frame_head[3]) & 0x0F or head[3] >> 4 > 10:
            return None
        length = 1 if head[4] < 0x80 else 8 - (head[4] ^ 0xFF).bit_length()
        number = head[4] if length == 1 else head[4] & (0x7F >> length)
        for byte in head[5 : 4 + length]:
            number = number << 6 | byte & 0x3F
        at, code = 4 + length, head[2] >> 4
        if code in (6, 7):
            block = int.from_bytes(head[at : at + code - 5], "big") + 1
            at += code - 5
        elif code:
            block = 192 if code == 1 else 576 << code - 2 if code < 6 else 256 << code - 8
        else:
            return None
        at += {12: 1, 13: 2, 14: 2}.get(head[2] & 0x0F, 0)
        if at >= len(head) or _crc8(head[:at]) != head[at]:
            return None
        variable = head[1] & 1  # then frames count samples
        return (number if variable else number * self.block) + block


def _crc8(content: bytes) -> int:
    crc = 0
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ (0x07 if crc & 0x80 else 0)) & 0xFF
    return crc
