"""Any corpus that tables describe: one row an utterance, in a file or folder below its root.

Columns (of a CSV file its header names them, in any order; empty or null is unknown):

    id        unique name; default: `audio` without its suffix, else the row's number in its split
              (the latter in Parquet and Arrow only)
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
    asr       what a speech recogniser heard, beside the reference in `text`

Required are `label`, `speaker`, and `audio` or `text`. The data and its licence are the user's own.

Layouts, by what `file` names:

    a .csv or .jsonl file           UTF-8; with no columns but these, unless `columns` is given
    a .parquet file, a folder of    Hugging Face `datasets`: other columns are left alone, integers
    such, or a pattern              of a ClassLabel become its names, the split comes from the path
    (data/train-*.parquet)          (train, validation, dev, test ...) where no column says it
    a folder by `save_to_disk`      the same, with or without splits
    a folder with metadata.csv or   `audiofolder`: the column `file_name` is the path of the audio,
    metadata.jsonl, or such a file  relative to that file

Audio inside a table is put below the root once, under `heronry_audio/`. A row whose audio is empty
is rejected, and the rest goes on; all other problems are listed together, and refused.
"""

from __future__ import annotations

import functools
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from features.corpora._adapter import CorpusFactory, Item, Source
from features.corpora._embedded_audio import FOLDER, unpack
from features.corpora._layouts import find_tables
from features.corpora._parquet import Shard
from features.corpora._tables import COLUMNS, Reading, TextTable, check_relative, raise_faults
from features.errors import ManifestError, ParamsError
from features.manifest import SPLITS, Utterance


@dataclass
class _Table:
    """A table with the items of its rows and where they stand."""

    source: TextTable | Shard
    reading: Reading
    items: list[Item] = field(default_factory=list)
    places: list[str] = field(default_factory=list)


class ManifestCorpus:
    """The rows of its tables.

    Args:
        root: Folder of the corpus.
        file: What describes it, relative to `root`: a file, a folder (`.`: the root itself) or a
            pattern.
        classes: Class names in the order of the model's outputs; None: those that occur, sorted.
        columns: Names of the columns above to what the table calls them, such as
            `{label: emotion, text: transcription}`; to an empty name where the table's column of
            that name is something else. None: the table uses the names above.
    """

    source: ClassVar[Source] = Source(
        title="A corpus described by a table",
        licence="as its owner says",
        citation="as its owner says",
        obtain="It is the user's own.",
    )
    generated: ClassVar[bool] = False

    def __init__(
        self,
        root: Path,
        *,
        file: str = "manifest.csv",
        classes: list[str] | None = None,
        columns: dict[str, str] | None = None,
    ) -> None:
        unknown = sorted(set(columns or ()) - set(COLUMNS))
        if unknown:
            raise ParamsError(f"columns: given {unknown}; expected some of {list(COLUMNS)}")
        self._root, self._file, self._columns = root, file, columns
        self._given = None if classes is None else tuple(classes)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the model's outputs."""
        if self._given is not None:
            return self._given
        return tuple(sorted({item.label for item in self._items if item.label is not None}))

    def items(self) -> Iterator[Item]:
        """All rows, in the order of the tables.

        Raises:
            ManifestError: Listing what is wrong with the tables, by line or row.
        """
        yield from self._items

    @functools.cached_property
    def _items(self) -> tuple[Item, ...]:
        tables, faults = self._read()
        items = [item for table in tables for item in table.items]
        places = [place for table in tables for place in table.places]
        faults += _repeated(items, places) + _outside(items, places, self._given)
        raise_faults(self._root / self._file, faults)
        # Only now, since it may be gigabytes.
        return tuple(item for table in tables for item in self._with_audio(table))

    def _read(self) -> tuple[list[_Table], list[str]]:
        tables, faults = [], []
        numbers: Counter[str] = Counter()
        for source in find_tables(self._root, self._file):
            table = _Table(source, source.read(self._columns))
            faults += table.reading.faults
            for row in table.reading.rows:
                cells = row.cells
                if table.reading.numbered:
                    cells = _numbered(cells, numbers, embedded=bool(table.reading.embedded))
                try:
                    table.items.append(_item(cells))
                    table.places.append(row.place)
                except ManifestError as error:
                    faults.append(f"{row.place}: {error}")
            tables.append(table)
        return tables, faults

    def _with_audio(self, table: _Table) -> Iterable[Item]:
        column, source = table.reading.embedded, table.source
        if column is None or isinstance(source, TextTable):
            return table.items
        return unpack(table.items, source, column, self._root)


def _numbered(cells: dict[str, Any], numbers: Counter[str], *, embedded: bool) -> dict[str, Any]:
    """Cells with an id by the row's number in its split, where nothing else names the row."""
    split = str(cells.get("split") or "row")
    number = numbers[split]
    numbers[split] += 1
    if cells.get("id") in (None, "") and not cells.get("audio"):
        cells = cells | {"id": f"{split}-{number:06d}"}
    return cells | {"audio": FOLDER} if embedded else cells


def _item(row: Mapping[str, Any]) -> Item:
    text = {name: _text(name, row.get(name)) for name in COLUMNS}
    if text["speaker"] is None:
        raise ManifestError("speaker is empty; expected who speaks, since splits rest on it")
    audio = text["audio"]
    if audio is not None:
        check_relative(audio)
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
        asr=text["asr"],
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


def _repeated(items: Sequence[Item], places: Sequence[str]) -> list[str]:
    return [
        f"id {id!r} occurs in {_first(at)}; expected each id once: give the rows `id`s"
        for id, at in _places((item.id for item in items), places).items()
        if len(at) > 1
    ]


def _outside(
    items: Sequence[Item], places: Sequence[str], classes: Sequence[str] | None
) -> list[str]:
    return [
        f"label {label!r} in {_first(at)} ({len(at)} in all); expected one of "
        f"{list(classes)}: correct it, or add it to `classes`"
        for label, at in _places((item.label for item in items), places).items()
        if classes is not None and label is not None and label not in classes
    ]


def _first(places: Sequence[str]) -> str:
    """The first five, in few words where they are lines of the one file that there is."""
    if all(place.startswith("line ") for place in places):
        return f"lines [{', '.join(place.removeprefix('line ') for place in places[:5])}]"
    return ", ".join(places[:5])


def _places(values: Iterable[str | None], places: Sequence[str]) -> dict[str | None, list[str]]:
    held = defaultdict(list)
    for value, place in zip(values, places, strict=True):
        held[value].append(place)
    return held


build: CorpusFactory = ManifestCorpus
