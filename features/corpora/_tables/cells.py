"""Parse table cells: missing values, equal names, encoding errors.

A column of integers with a gap becomes floats in pandas, one file says `NaN` where another leaves
a cell empty, and Windows-1252 gets into UTF-8 in two ways. All tables are parsed here, so that one
speaker is one speaker in every kind of table, and each correction is reported (`Item.notices`).

- `identity`: cells that identify or group rows (id, label, speaker ...). Whole floats are integers,
  `MISSING` is a missing value in any case of letters, and Unicode is composed (NFC), so that equal
  names are equal texts.
- `words`: what somebody said. `None` and `null` can be said; spellings that only programs write
  (`NOT_SAID`) are missing.
- `path`: a file name, which must stay as it is on the disk.
- `number`: seconds and turns.

In `identity` and `words` the control characters U+0080 to U+009F, which no table means, are read as
the characters of Windows-1252 with the same codes, and text that was encoded as UTF-8 twice
(`donâ€™t`) is decoded once more where nothing else can be meant. NUL and lone surrogates, which
cannot be written as text, are refused.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Collection
from typing import Any, Literal

from features.arguments import quoted
from features.errors import ManifestError
from features.files.records import check_text

# Missing values as pandas, R, spreadsheets and databases write them; compared in lower case.
MISSING = frozenset(
    ("", "nan", "-nan", "none", "null", "n/a", "#n/a", "na", "#na", "<na>", "nat", "nil")
)
NOT_SAID = frozenset(("", "NaN", "nan", "-nan", "NULL", "N/A", "n/a", "#N/A", "#NA", "<NA>", "NaT"))
ENCODINGS = 3  # superfluous encodings that are undone at most
LONGEST_TIME = 20  # characters of a malformed time for which a message suggests seconds
EmptyText = Literal["encode", "drop"]
EXACT_DIGITS = 15  # digits up to which a float represents an integer exactly
# An integer that became a float, such as 7.0.
_WHOLE = re.compile(r"(-?)(0|[1-9][0-9]*)\.0+")
# An integer that lost digits as a float, such as 1.5e+20.
_ROUNDED = re.compile(r"-?[0-9](\.[0-9]+)?[eE]\+[0-9]+")
_NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
# [hours:]minutes:seconds.
_CLOCK = re.compile(r"(?:([0-9]+):)?([0-9]+):([0-9]+(?:[.,][0-9]+)?)")
_UNIT = re.compile(r"([0-9]+\.?[0-9]*) *(s|sec|seconds|ms|msec|milliseconds)?")

_UPPER = range(0x80, 0x100)
_WINDOWS = {b: bytes([b]).decode("cp1252", errors="ignore") or chr(b) for b in _UPPER}
_BYTES = {chr(byte): byte for byte in _UPPER} | {char: byte for byte, char in _WINDOWS.items()}
# Windows-1252 leaves five of these codes undefined.
_CONTROLS = {
    byte: "\ufffd" if _WINDOWS[byte] == chr(byte) else _WINDOWS[byte] for byte in range(0x80, 0xA0)
}
_HAS_CONTROLS = re.compile("[\x80-\x9f]")


def _class(first: int, last: int) -> str:
    held = {char for char, byte in _BYTES.items() if first <= byte <= last}
    return "[" + re.escape("".join(sorted(held))) + "]"


# Sequences of UTF-8 bytes that were read as Windows-1252 or Latin-1. The first byte DF is left out:
# it begins no script in use, and its letter (the German sharp s) often precedes a quotation mark.
_NEXT = _class(0x80, 0xBF)
_TWICE = re.compile(
    f"{_class(0xC2, 0xDE)}{_NEXT}|{_class(0xE0, 0xEF)}{_NEXT}{{2}}|{_class(0xF0, 0xF4)}{_NEXT}{{3}}"
)
_LOST = re.compile("\ufffd|\u00e2\u20ac")  # the second begins misread curly quotes and dashes
_PUNCTUATION = "\xa0\xab\xbb\xb7\u2013\u2014\u2018\u2019\u201a\u201c\u201d\u201e\u2026\u2039\u203a"
_WHOLLY = 3  # characters encoded twice, without others beside ASCII, that prove it in any script


def identity(
    name: str, value: Any, notes: list[str] | None = None, *, known: Collection[str] = ()
) -> str | None:
    """Parse a cell that identifies or groups rows; None if it is missing.

    Args:
        name: Column, for messages.
        value: Cell as stored in the table.
        notes: List that receives a line for each correction.
        known: Values that are meant literally, even if they are spelt like a missing one.

    Raises:
        ManifestError: If it is not text or a number, or cannot be written as text.

    >>> identity("speaker", 7.0), identity("speaker", " 7.0 "), identity("speaker", "N/A")
    ('7', '7', None)
    """
    text = _mended(name, _plain(name, value), notes).strip()
    if name != "id":  # an id is not changed but refused later, unless it is printable
        text = " ".join(text.split())
        if not text.isprintable() and any(unicodedata.category(c) == "Cc" for c in text):
            raise ManifestError(f"{name} is {quoted(text)}; expected no control characters in it")
    if _WHOLE.fullmatch(text) or _ROUNDED.fullmatch(text):
        whole = text.partition(".")[0]
        if len(whole.lstrip("-")) > EXACT_DIGITS or "+" in text:
            raise ManifestError(
                f"{name} is {text}: a float of so many digits has lost some; expected it as text "
                "or as an integer"
            )
        text = str(int(whole))
    if text.lower() in MISSING and text not in known:
        return None
    return unicodedata.normalize("NFC", text)


def words(name: str, value: Any, notes: list[str] | None = None) -> str | None:
    """Parse a cell of spoken words; None if it is missing.

    Arguments and errors are those of `identity`.

    >>> words("text", "None"), words("text", "NaN"), words("text", "donâ€™t")
    ('None', None, 'don’t')
    """
    text = _mended(name, _plain(name, value), notes, lost="\ufffd").strip()
    if text in NOT_SAID:
        if text:
            _note(notes, f"{name} {text!r} is read as missing")
        return None
    if text.lower() in MISSING:
        _note(notes, f"{name} {text!r} is taken for words that were said")
    return text


def spoken(
    name: str, value: Any, notes: list[str] | None = None, *, empty: EmptyText = "drop"
) -> str | None:
    """Parse a cell of spoken words; an empty one may stand for an utterance without any.

    Args:
        name: Column, for messages.
        value: Cell as stored in the table; null and NaN are missing in any case.
        notes: List that receives a line for each correction.
        empty: `encode` gives an empty text, `drop` none.

    >>> spoken("text", " ", empty="encode"), spoken("text", " "), spoken("text", None)
    ('', None, None)
    """
    found = words(name, value, notes)
    said_nothing = found is None and isinstance(value, str) and not value.strip()
    return "" if said_nothing and empty == "encode" else found


def path(name: str, value: Any) -> str | None:
    """Parse a cell with the name of a file, left as it is; None if it is missing."""
    text = _plain(name, value).strip()
    check_text(name, text)
    return None if text.lower() in MISSING else text


def number(name: str, value: Any) -> float | None:
    """Parse a non-negative number; None if the cell is missing.

    Raises:
        ManifestError: If it is anything else.
    """
    text = _plain(name, value).strip()
    if text.lower() in MISSING:
        return None
    found = float(text) if _NUMBER.fullmatch(text) else math.nan
    if not 0 <= found < math.inf:
        raise ManifestError(f"{name} {quoted(text)}; expected a number from 0{_seconds_hint(text)}")
    return found


def scaled(
    name: str, value: Any, low: float, high: float, *, expected: str | None = None
) -> float | None:
    """Parse a number on a scale; None if the cell is missing.

    Args:
        name: Column, for messages.
        value: Cell as stored in the table.
        low: Lowest number.
        high: Highest number.
        expected: What a message says is expected, in place of the scale.

    Raises:
        ManifestError: If it is anything else.
    """
    text = _plain(name, value).strip()
    if text.lower() in MISSING:
        return None
    found = float(text) if _NUMBER.fullmatch(text) else math.nan
    if not low <= found <= high:
        wanted = expected or f"a number from {low:g} to {high:g}"
        raise ManifestError(f"{name} is {quoted(text)}; expected {wanted}")
    return int(found) if found.is_integer() else found


def _seconds_hint(text: str) -> str:
    """The time in seconds that a malformed cell may mean, for messages; empty if unclear."""
    if len(text) > LONGEST_TIME:
        return ""
    clock = _CLOCK.fullmatch(text)
    if clock:
        hours, minutes, rest = clock.groups()
        seconds = int(hours or 0) * 3600 + int(minutes) * 60 + float(rest.replace(",", "."))
        meant = "" if hours else ", if it is minutes and seconds"
        return f", in seconds: {round(seconds, 3):.10g}{meant}"
    unit = _UNIT.fullmatch(text.replace(",", "."))
    if unit is None:
        return ""
    scale = 1000 if unit[2] and unit[2].startswith("m") else 1
    return f", in seconds: {round(float(unit[1]) / scale, 6):.10g}"


def is_missing(value: Any) -> bool:
    """Whether a cell of any column but `text` and `asr` is a missing value."""
    if isinstance(value, float):
        return math.isnan(value)
    return value is None or (isinstance(value, str) and value.strip().lower() in MISSING)


def decoded(content: bytes) -> str:
    """Decode a published table, each line as UTF-8 or, where that fails, as Windows-1252.

    Line by line, since one stray byte says nothing about the other lines.
    """
    lines = content.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    return "\n".join(map(_decoded_line, lines))


def _decoded_line(line: bytes) -> str:
    try:
        return line.decode()
    except UnicodeDecodeError:
        return line.decode("latin-1").translate(_WINDOWS)


def _plain(name: str, value: Any) -> str:
    """A cell as text; empty if it is null or NaN."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ManifestError(f"{name} is {quoted(value)}; expected text or a number")
    if isinstance(value, float) and math.isinf(value):
        raise ManifestError(f"{name} is infinite; expected text or a finite number")
    if isinstance(value, float) and value.is_integer() and abs(value) < 10**EXACT_DIGITS:
        return str(int(value))
    return str(value)


def _mended(name: str, text: str, notes: list[str] | None, *, lost: str | None = None) -> str:
    """Correct the encoding of a text.

    Args:
        name: Column, for messages.
        text: Text as it was read.
        notes: List that receives a line for each kind of change.
        lost: Replacement for control characters without meaning; None leaves them.
    """
    check_text(name, text)
    if text.isascii():
        return text
    mended = text
    for _ in range(ENCODINGS):
        mended = _decoded_once(mended)
    if mended != text:
        _note(notes, f"{name} was encoded as UTF-8 twice: mended")
    if _LOST.search(mended) or any(_doubtful(match) for match in _TWICE.finditer(mended)):
        _note(notes, f"{name} has lost characters or may be encoded twice: used as it is")
    if _HAS_CONTROLS.search(mended):
        _note(notes, f"{name} has characters U+0080 to U+009F: read as Windows-1252")
        kept = _CONTROLS if lost else {b: c for b, c in _CONTROLS.items() if c != "\ufffd"}
        mended = mended.translate(kept)
    return mended


def _decoded_once(text: str) -> str:
    """Undo one superfluous UTF-8 encoding wherever nothing else can be meant."""
    found = list(_TWICE.finditer(text))
    alone = len(found) >= _WHOLLY and _TWICE.sub("", text).isascii()
    wholly = alone and all(map(_undone, found))
    return _TWICE.sub(lambda match: _undone(match) if wholly or _sure(match) else match[0], text)


def _undone(match: re.Match[str]) -> str:
    """The character that was encoded twice, or empty text."""
    content = bytes(_BYTES[char] for char in match[0])
    return content.decode("utf-8", errors="ignore") if len(match[0]) > 1 else ""


def _sure(match: re.Match[str]) -> bool:
    """Whether these characters stand beside each other in no known language."""
    char = _undone(match)
    if not char:
        return False
    first, second, *_ = content = [_BYTES[char] for char in match[0]]
    if first == 0xE2:  # curly quotes, dashes, the ellipsis; euro and trade mark
        return second == 0x80 or content in ([0xE2, 0x82, 0xAC], [0xE2, 0x84, 0xA2])
    if first == 0xF0:
        return second == 0x9F  # emoji
    # Empty at the beginning of the text, as [-1:0] is.
    before = match.string[match.start() - 1 : match.start()]
    control = ord(match[0][1]) < 0xA0
    if first in (0xC2, 0xC3):  # the letters of Western Europe and their signs
        return control or match[0][1] not in _PUNCTUATION or not before.isupper()
    return first in (0xC4, 0xC5) and (control or before.islower())  # of Central Europe


def _doubtful(match: re.Match[str]) -> bool:
    return 0xC2 <= _BYTES[match[0][0]] <= 0xC5 and bool(_undone(match))


def _note(notes: list[str] | None, note: str) -> None:
    if notes is not None:
        notes.append(note)
