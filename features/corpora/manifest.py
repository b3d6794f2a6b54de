"""Any corpus that a table describes: one row an utterance, in CSV or JSON Lines, below its root.

Columns (UTF-8; the header of a CSV file names them, in any order; empty or null is unknown):

    id        unique name; default: `audio` without its suffix
    audio     path of the file, relative to the root, with forward slashes
    text      transcript
    start     seconds into the file at which the utterance begins; default: its beginning
    stop      seconds into the file at which it ends; default: its end
    label     class; a row without one is listed as rejected
    speaker   who speaks, unique in the corpus
    dialogue  conversation or recording, unique in the corpus
    turn      position in the dialogue, from 0
    gender    of the speaker
    sentence  identity of a scripted sentence
    split     train, valid, test or unused: for `protocol: official`

Required are `label`, `speaker`, and `audio` or `text`. The data and its licence are the user's own.
"""

from __future__ import annotations

import csv
import functools
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any, ClassVar

from features.corpora._adapter import CorpusFactory, Item, Source
from features.errors import ManifestError
from features.manifest import SPLITS, Utterance

COLUMNS = (
    "id", "audio", "text", "start", "stop", "label", "speaker", "dialogue", "turn", "gender",
    "sentence", "split",
)  # fmt: skip
LISTED = 20  # problems that a message quotes
Row = tuple[int, dict[str, Any]]


class ManifestCorpus:
    """The rows of a table.

    Args:
        root: Folder of the corpus.
        file: The table, relative to `root`; `.jsonl` is JSON Lines, anything else CSV.
        classes: Class names in the order of the model's outputs; None: those that occur, sorted.
    """

    source: ClassVar[Source] = Source(
        title="A corpus described by a table",
        licence="as its owner says",
        citation="as its owner says",
        obtain="It is the user's own.",
    )
    generated: ClassVar[bool] = False

    def __init__(
        self, root: Path, *, file: str = "manifest.csv", classes: list[str] | None = None
    ) -> None:
        self._root, self._file = root, file
        self._given = None if classes is None else tuple(classes)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the model's outputs."""
        if self._given is not None:
            return self._given
        return tuple(sorted({item.label for item in self._items if item.label is not None}))

    def items(self) -> Iterator[Item]:
        """All rows, in the order of the table.

        Raises:
            ManifestError: Listing what is wrong with the table, by line.
        """
        yield from self._items

    @functools.cached_property
    def _items(self) -> tuple[Item, ...]:
        path = _below(self._root, self._file)
        rows, faults = _read(path)
        items, numbers = [], []
        for number, row in rows:
            try:
                items.append(_item(row))
                numbers.append(number)
            except ManifestError as error:
                faults.append(f"line {number}: {error}")
        faults += _repeated(items, numbers) + _outside(items, numbers, self._given)
        _raise(path, faults)
        return tuple(items)


def _below(root: Path, file: str) -> Path:
    _check_relative(file)
    path = root / file
    if not path.is_file():
        found = sorted(p.name for p in root.iterdir())[:5]
        raise ManifestError(
            f"there is no table {file!r} in {root}, which holds {found}; expected a CSV or .jsonl "
            "file with a row for each utterance: name it by `file`, or correct the root"
        )
    return path


def _read(path: Path) -> tuple[list[Row], list[str]]:
    rows: list[Row] = []
    faults: list[str] = []
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            parse = _jsonl if path.suffix == ".jsonl" else _csv
            for number, row in parse(file):
                if isinstance(row, str):
                    faults.append(f"line {number}: {row}")
                else:
                    rows.append((number, row))
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path} is not UTF-8 text ({error}); save it as UTF-8") from error
    names = {name for _, row in rows for name in row}
    unknown = sorted(names - set(COLUMNS))
    if unknown:
        faults.insert(0, f"unknown columns {unknown}; expected some of {list(COLUMNS)}")
        rows = [(number, {k: row[k] for k in row if k in COLUMNS}) for number, row in rows]
    lacking = [name for name in ("label", "speaker") if name not in names]
    if not names & {"audio", "text"}:
        lacking.append("audio or text")
    if rows and lacking:
        _raise(path, [*faults, f"it has no column {', nor '.join(lacking)}: add it"])
    return rows, faults


def _csv(file: Any) -> Iterator[tuple[int, dict[str, Any] | str]]:
    reader = csv.reader(file, strict=True)
    header = [name.strip() for name in next(reader, [])]
    twice = sorted({name for name in header if header.count(name) > 1})
    if twice:
        yield 1, f"columns {twice} occur twice in the header; expected each once"
    try:
        for cells in reader:
            if len(cells) == len(header):
                yield reader.line_num, dict(zip(header, cells, strict=True))
            elif cells:
                fault = f"{len(cells)} cells; expected {len(header)} as in the header"
                yield reader.line_num, fault
    except csv.Error as error:
        yield reader.line_num, f"not CSV ({error}); the rest was not read"


def _jsonl(file: Any) -> Iterator[tuple[int, dict[str, Any] | str]]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            yield number, f"not JSON ({error}); expected one object a line"
            continue
        yield number, row if isinstance(row, dict) else "not a JSON object; expected one a line"


def _item(row: dict[str, Any]) -> Item:
    text = {name: _text(name, row.get(name)) for name in COLUMNS}
    if text["speaker"] is None:
        raise ManifestError("speaker is empty; expected who speaks, since splits rest on it")
    audio = text["audio"]
    if audio is not None:
        _check_relative(audio)
        audio = str(PurePosixPath(audio))
    id = text["id"] or (audio and str(PurePosixPath(audio).with_suffix("")))
    if id is None:
        raise ManifestError("id and audio are empty; expected an id where there is no audio")
    if text["split"] is not None and text["split"] not in SPLITS:
        raise ManifestError(f"split {text['split']!r}; expected one of {SPLITS}")
    start, stop, turn = (_number(name, text[name]) for name in ("start", "stop", "turn"))
    # The same checks as when the written manifest is read, while the line is still known.
    Utterance(id, audio=audio, text=text["text"], start=start or 0.0, stop=stop)
    if turn is not None and not turn.is_integer():
        raise ManifestError(f"turn {text['turn']!r}; expected an integer from 0")
    return Item(
        id=id,
        label=text["label"],
        speaker=text["speaker"],
        audio=audio,
        text=text["text"],
        start=start,
        stop=stop,
        dialogue=text["dialogue"],
        turn=None if turn is None else int(turn),
        gender=text["gender"],
        sentence=text["sentence"],
        split=text["split"],
        reject=None if text["label"] else "it has no label",
    )


def _text(name: str, value: Any) -> str | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ManifestError(f"{name} is {value!r}; expected text or a number")
    return str(value).strip() or None


def _number(name: str, value: str | None) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not 0 <= number < math.inf:
        raise ManifestError(f"{name} {value!r}; expected a number from 0")
    return number


def _check_relative(path: str) -> None:
    parts, windows = PurePosixPath(path).parts, PureWindowsPath(path)
    if path.startswith("/") or windows.drive or ".." in parts or ".." in windows.parts:
        raise ManifestError(f"path {path!r}; expected a relative one below the corpus root")


def _repeated(items: Sequence[Item], numbers: Sequence[int]) -> list[str]:
    return [
        f"id {id!r} occurs in lines {lines[:5]}; expected each id once: give the rows `id`s"
        for id, lines in _lines((item.id for item in items), numbers).items()
        if len(lines) > 1
    ]


def _outside(
    items: Sequence[Item], numbers: Sequence[int], classes: Sequence[str] | None
) -> list[str]:
    return [
        f"label {label!r} in lines {lines[:5]} ({len(lines)} in all); expected one of "
        f"{list(classes)}: correct it, or add it to `classes`"
        for label, lines in _lines((item.label for item in items), numbers).items()
        if classes is not None and label is not None and label not in classes
    ]


def _lines(values: Iterable[str | None], numbers: Sequence[int]) -> dict[str | None, list[int]]:
    lines = defaultdict(list)
    for value, number in zip(values, numbers, strict=True):
        lines[value].append(number)
    return lines


def _raise(path: Path, faults: list[str]) -> None:
    if faults:
        more = [f"and {len(faults) - LISTED} more"] if len(faults) > LISTED else []
        listed = "\n  ".join([*faults[:LISTED], *more])
        raise ManifestError(f"{path}: problems to mend:\n  {listed}")


build: CorpusFactory = ManifestCorpus
