"""Reads and writes JSON objects, and tables of records as JSONL; errors name file and line."""

from __future__ import annotations

import dataclasses
import json
import math
import typing
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any, BinaryIO, TypeVar

from features.arguments import in_lines, parameter_types, problems, quoted
from features.errors import HeronryError, ManifestError
from features.files.json_text import Decoder, parse_json
from features.files.reading import open_regular
from features.files.writing import replacing

Row = TypeVar("Row")


def check_text(what: str, text: str) -> None:
    """Raise `ManifestError` for text with NUL or half a surrogate pair, which is not UTF-8 text."""
    try:
        if "\0" not in text:
            text.encode()
            return
        fault = "NUL (U+0000)"
    except UnicodeEncodeError as error:
        fault = f"half a character (U+{ord(text[error.start]):04X})"
    raise ManifestError(f"{what} holds {fault}; expected whole characters: {quoted(text)}")


def check_unique(ids: Iterable[str], where: str) -> None:
    """Raise `ManifestError` naming up to five ids that occur twice."""
    twice = [id for id, times in Counter(ids).items() if times > 1]
    if twice:
        raise ManifestError(
            f"{where}: {len(twice)} ids occur more than once, such as {twice[:5]}; "
            "expected each id once: rename or remove the extra rows"
        )


def write_rows(path: Path, rows: Iterable[Any]) -> None:
    """Write records as JSON, one a line; None fields are left out."""
    # Replaced at the end, since the rows may be read from the same file meanwhile.
    with replacing(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for row in rows:
            fields = {
                key: dict(value) if isinstance(value, Mapping) else value
                for key, value in vars(row).items()
                if value is not None
            }
            file.write(json.dumps(fields, ensure_ascii=False, allow_nan=False) + "\n")


def read_rows(path: Path, record: type[Row]) -> Iterator[Row]:
    """Read records written by `write_rows`; `ManifestError` names the line of a malformed one."""
    parse = row_parser(path, record)
    with opened(path) as file:
        for number, line in enumerate(file, 1):
            yield parse(number, line)


def row_parser(path: Path, record: type[Row]) -> Callable[[int, bytes], Row]:
    """Function that parses a line of `path`, given its number (from 1) and content, to a record."""
    names = {field.name for field in dataclasses.fields(record)}  # type: ignore[arg-type]
    # `write_rows` leaves out what is None, of fields without a default as well.
    absent = {
        name: None
        for name, hint in parameter_types(record).items()
        if type(None) in typing.get_args(hint)
    }

    def parse(number: int, line: bytes) -> Row:
        try:
            fields = parse_json(line)
            if not isinstance(fields, dict):
                raise ManifestError("is no JSON object")
            if not names.issuperset(fields):
                unknown = sorted(set(fields) - names)
                raise ManifestError(f"unknown field {unknown[0]!r}; expected {sorted(names)}")
            if b"\\u" in line:  # only such escapes can hold half a surrogate pair, or NUL
                for name, value in fields.items():
                    if isinstance(value, str):
                        check_text(name, value)
            if "splits" in fields:
                fields["splits"] = tuple(fields["splits"])
            return record(**absent | fields)
        except (ValueError, TypeError, ManifestError) as error:
            raise ManifestError(f"{path}, line {number}: {error}") from error

    return parse


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write a JSON object for people and programs: indented, UTF-8, no NaN."""
    text = json.dumps(value, ensure_ascii=False, indent=2, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object strictly: no repeated key, NaN, infinity or half a surrogate pair.

    Raises:
        ManifestError: Saying what is wrong with the file.
    """
    with opened(path) as file:
        try:
            value = _STRICT.decode(file.read().decode())
            json.dumps(value, ensure_ascii=False).encode()
        except ValueError as error:
            raise ManifestError(f"{path} is not JSON ({error})") from error
    if not isinstance(value, dict):
        raise ManifestError(f"{path} holds a {type(value).__name__}; expected a JSON object")
    return value


def read_record(
    path: Path, schema: type, again: str, error: type[HeronryError] = ManifestError
) -> dict[str, Any]:
    """Read a JSON object and check it against the fields of a dataclass.

    Other fields are tolerated, since later releases may write more; but not a misspelt one where a
    field of the dataclass is missing.

    Args:
        path: The file.
        schema: The dataclass; fields without a default are required.
        again: What to do if a field is wrong.
        error: Exception to raise then.

    Raises:
        ManifestError: If the file cannot be read, or holds no JSON object.
    """
    content = read_json(path)
    names = {field.name for field in dataclasses.fields(schema)}
    missing = names - content.keys()
    # A field close to a missing one is checked too, so that the message names the misspelling.
    misspelt = (name for name in content.keys() - names if get_close_matches(name, missing, 1, 0.8))
    given = {name: content[name] for name in [*(content.keys() & names), *misspelt]}
    found = sorted(problems(schema, given, ""))
    if found:
        raise error(in_lines([f"{path}: {line}: {again}" for line in found]))
    return content


def _each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = [name for name, times in Counter(name for name, _ in pairs).items() if times > 1]
        raise ValueError(f"the key {twice[0]!r} stands there twice")
    return found


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no finite number")
    return value


_STRICT = Decoder(object_pairs_hook=_each_once, parse_constant=_finite, parse_float=_finite)


def opened(path: Path) -> BinaryIO:
    """Open a file of an earlier stage; `ManifestError` if it cannot be read."""
    try:
        return open_regular(path)
    except OSError as error:
        raise ManifestError(
            f"cannot read {path} ({error.strerror}); expected the output of an earlier stage: "
            "run `dvc repro`"
        ) from error
