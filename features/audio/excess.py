"""Finds sound in an audio file that a decoder does not play, and contradictory headers.

Decoders silently stop where the header says that the sound ends, and after the first of several
concatenated files: if a recorder wrote the length too early, the rest is lost. Containers show it:
bytes behind the samples of WAV and AIFF, the number of FLAC's last frame, MP3's frames against the
Xing header, Ogg's pages of a second stream. A header that contradicts itself (rate, channels and
bits against bytes a second) is reported as well, since one of its numbers is wrong.

Not detected: an Ogg stream with a single page of sound whose page claims less than it holds, data
behind the samples of other containers (libsndfile plays it), and a wrong sample rate where the
header has it only once (AIFF, AU, CAF, W64, NIST).

Formats: those of `features.audio.container`, RFC 9639 (FLAC), Sun's AU and Apple's CAF.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from functools import partial
from typing import BinaryIO

from features.audio.container import Frame, Layout, Payload, mp3_frames, payload, skip_id3

# Beginnings of ID3 and APE tags, which may follow the sound.
_TAGS = (b"TAG", b"ID3", b"APETAGEX", b"LYRICSBEGIN")
# Beginnings of sound, which are no chunks to be skipped: files that were concatenated.
_SOUND = (b"RIFF", b"RIFX", b"RF64", b"BW64", b"FORM", b"data", b"SSND", b"caff", b"riff")
_FLAC = b"fLaC"
_STREAMINFO = b"\x00\x00\x00\x22"  # type and length of the first metadata block
_FLAC_TAIL = 2**20  # bytes at the end, in which the last frame begins
_BLOCK = 2**20
_MP3_START = 2**16  # bytes at the beginning, in which the first frame begins
_MP3_SLACK = 4  # frames: an encoder's delay and padding, which decoders cut off
_SLACK_SECONDS = 0.02
_PLAIN = (1, 3, 6, 7, 0xFFFE)  # format codes of WAV with a fixed number of bits per sample
_FLAC_RATES_HZ = dict(enumerate((8_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000, 96_000), 4))


def find_excess(file: BinaryIO, seconds: float, kind: str) -> str | None:
    """Describe sound that the decoder skips, or a contradictory header; None if there is neither.

    Args:
        file: The file; read from its beginning, its position afterwards is undefined.
        seconds: Duration according to the decoder.
        kind: Format according to the decoder, by libsndfile's name.
    """
    skip_id3(file)
    begin, magic = file.tell(), file.read(4)
    file.seek(begin)
    if kind == "MP3":
        return _mp3_excess(file, seconds)
    if magic == b"OggS":
        return _ogg_excess(file, seconds)
    if magic == _FLAC:
        return _flac_excess(file, seconds)
    found = payload(file)
    if found is None:
        return None
    excess = _chunks_excess(file, found, seconds, plays_all=magic in (b"riff", b"NIST"))
    if excess is None and magic in (b"RIFF", b"RF64", b"BW64"):
        return _wav_contradiction(file, begin)
    if excess is None and magic == b"FORM":
        return _aiff_contradiction(file, begin, found, seconds)
    return excess


def _difference(seconds: float, held: float) -> str | None:
    if held - seconds <= _SLACK_SECONDS:
        return None
    return (
        f"its header says {seconds:.3f} s, but it holds {held:.3f} s: only the first "
        f"{seconds:.3f} s are used"
    )


def _chunks_excess(
    file: BinaryIO, found: Payload, seconds: float, *, plays_all: bool
) -> str | None:
    if not found.promised:  # of unknown length: the decoder plays everything
        return None
    rest = _after(file, found)
    if not plays_all:  # libsndfile plays a W64 and a NIST file to its end
        return _difference(seconds, seconds * (1 + rest / found.promised))
    promised = seconds / (1 + rest / found.promised)
    if seconds - promised <= _SLACK_SECONDS:
        return None
    return (
        f"its header says {promised:.3f} s; what follows, up to {seconds:.3f} s, is used as if it "
        "were sound, too"
    )


def _chunk_content(file: BinaryIO, begin: int, name: bytes, layout: Layout) -> bytes:
    """The first 64 bytes of a chunk before the samples; empty if there is none."""
    file.seek(begin + 12)
    while chunk := layout.chunk(file):
        if chunk.name == name:
            return file.read(min(chunk.size, 64))
        if chunk.name in (b"data", b"SSND"):
            break
        file.seek(chunk.end)
    return b""


def _wav_contradiction(file: BinaryIO, begin: int) -> str | None:
    content = _chunk_content(file, begin, b"fmt ", Layout("<"))
    if len(content) < 16:
        return None
    code, channels, rate_hz, a_second, frame, bits = struct.unpack("<HHIIHH", content[:16])
    if code not in _PLAIN or (channels * -(-bits // 8) == frame and rate_hz * frame == a_second):
        return None
    return (
        f"its header contradicts itself: {rate_hz} samples a second of {bits} bits in {channels} "
        f"channels, but {frame} bytes for each and {a_second} a second"
    )


def _aiff_contradiction(file: BinaryIO, begin: int, found: Payload, seconds: float) -> str | None:
    file.seek(begin + 8)
    plain = file.read(4) == b"AIFF"
    content = _chunk_content(file, begin, b"COMM", Layout(">"))
    if not plain or len(content) < 8 or not found.promised:
        return None
    channels, frames, bits = struct.unpack(">hIh", content[:8])
    held = (found.promised - 8) / max(1, channels * -(-bits // 8))
    if abs(held - frames) * seconds <= _SLACK_SECONDS * max(1.0, held):
        return None
    return (
        f"its header contradicts itself: it says {frames} samples of {bits} bits in {channels} "
        f"channels, and {found.promised} bytes of them"
    )


def _after(file: BinaryIO, found: Payload) -> int:
    """Number of bytes behind the samples, unless they are chunks, tags or zeros."""
    size = file.seek(0, os.SEEK_END)
    here = found.begin + found.promised
    if found.layout is None:
        here = min(here, size)
    else:
        while here < size:
            file.seek(here)
            chunk = found.layout.chunk(file)
            if chunk is None or chunk.name in _SOUND or chunk.end > size + 1:
                break
            if not all(32 <= byte < 127 for byte in chunk.name):
                break
            here = chunk.end
    file.seek(min(here, size))
    if file.read(12).startswith(_TAGS):
        return 0
    file.seek(min(here, size))
    return size - here if any(any(block) for block in iter(partial(file.read, _BLOCK), b"")) else 0


def _mp3_excess(file: BinaryIO, seconds: float) -> str | None:
    begin, start = file.tell(), file.read(_MP3_START)
    at = _first_frame(start)
    if at is None:
        return f"it does not begin with frames of MP3: {seconds:.3f} s of it are used"
    if _needs_previous(start[at : at + 8]):
        return "its first frame continues one that is missing: its beginning is lost"
    if any(start[:at]):
        return f"the first {at} bytes of it are no MP3, and are passed over"
    file.seek(begin + at)
    frames = mp3_frames(file)
    first = next(frames, None)  # mostly the Xing header, whose frame count decoders rely on
    if first is None:
        return None
    held = sum(frame.samples / frame.rate_hz for frame in frames)
    if held - seconds <= _MP3_SLACK * first.samples / first.rate_hz:
        return None
    return _difference(seconds, held)


def _first_frame(start: bytes) -> int | None:
    """Offset of the first of two consecutive frames; None if there are none."""
    at = start.find(0xFF)
    while at >= 0:
        frame = Frame.of(start[at : at + 4])
        if frame and (Frame.of(start[at + frame.length :][:4]) or at + frame.length >= len(start)):
            return at
        at = start.find(0xFF, at + 1)
    return None


def _needs_previous(head: bytes) -> bool:
    """Whether a frame of MP3 takes bits from the frame before it (the "bit reservoir")."""
    at = 4 if head[1] & 1 else 6  # the side information, behind a checksum if there is one
    if len(head) < at + 2:
        return False
    # It begins with main_data_begin: 9 bits in MPEG 1, 8 in MPEG 2 and 2.5.
    bits = int.from_bytes(head[at : at + 2], "big")
    return bool(bits >> 7 if head[1] & 0x18 == 0x18 else bits >> 8)


def _ogg_excess(file: BinaryIO, seconds: float) -> str | None:
    links, active, latest, last = 0, set[int](), 0, 0
    while len(head := file.read(27)) == 27 and head[:4] == b"OggS":
        _, _, flags, granule, stream, _, _, lacing = struct.unpack("<4sBBqIIIB", head)
        file.seek(sum(file.read(lacing)), os.SEEK_CUR)
        if flags & 2:
            links += not active  # streams that begin together are multiplexed: one link
            active.add(stream)
        # A page's granule counts the samples so far; decoders stop at that of the last page.
        if granule >= 0 and links == 1:
            latest, last = max(latest, granule), granule
        if flags & 4:
            active.discard(stream)
    if links > 1:
        return (
            f"it holds {links} Ogg streams one after the other: only the first of them, "
            f"{seconds:.3f} s, is used"
        )
    return _difference(seconds, seconds * latest / last) if last else None


def _flac_excess(file: BinaryIO, seconds: float) -> str | None:
    begin = file.tell()
    info = _StreamInfo.read(file)
    if info is None or not info.samples:
        return None
    file.seek(begin + len(_FLAC))
    before = b""
    for block in iter(partial(file.read, _BLOCK), b""):
        if _FLAC + _STREAMINFO in before + block:
            return (
                f"another FLAC stream follows in it: only the first one, {seconds:.3f} s, is used"
            )
        # Kept for a marker that lies across two blocks.
        before = block[-len(_FLAC + _STREAMINFO) + 1 :]
    coded = info.frame_head[2] & 0x0F
    if _FLAC_RATES_HZ.get(coded, info.rate_hz) != info.rate_hz:
        return (
            f"its header contradicts itself: {info.rate_hz} samples a second, but "
            f"{_FLAC_RATES_HZ[coded]} in its frames"
        )
    held = info.held(file)
    return None if held is None else _difference(seconds, held / info.rate_hz)


@dataclass(frozen=True)
class _StreamInfo:
    """A FLAC's stream information.

    Attributes:
        block: Samples per channel of a block.
        rate_hz: Sample rate.
        samples: Samples per channel of the stream; 0 if unknown.
        frame_head: First four bytes of its first frame, some bits of which all frames share.
    """

    block: int
    rate_hz: int
    samples: int
    frame_head: bytes

    @classmethod
    def read(cls, file: BinaryIO) -> _StreamInfo | None:
        """Read it from the beginning of the stream; None if that is damaged."""
        head = file.read(42)
        if len(head) < 42 or head[5:8] != _STREAMINFO[1:]:
            return None
        packed = int.from_bytes(head[18:26], "big")  # 20 bits rate, 3 channels, 5 bits, 36 samples
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
        """Number of samples up to the end of the last frame; None if no frame is found."""
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
        """Number of samples up to the end of the frame with this header; None if it is none."""
        if len(head) < 16 or (head[2] ^ self.frame_head[2]) & 0x0F:
            return None
        if (head[3] ^ self.frame_head[3]) & 0x0F or head[3] >> 4 > 10:
            return None
        # RFC 9639, 9.1: the frame's number, coded as in UTF-8; then its size; then a checksum.
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
        variable = head[1] & 1  # of variable size: the number is that of the first sample
        return (number if variable else number * self.block) + block


def _crc8(content: bytes) -> int:
    crc = 0
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = (crc << 1 ^ (0x07 if crc & 0x80 else 0)) & 0xFF
    return crc
