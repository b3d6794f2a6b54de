"""A user's own corpus, described by tables with one row per utterance.

Columns, in any order (in a CSV file named by its header; empty, null, NaN and the other spellings
of `_tables/cells.py` are missing values):

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
    split     train, valid, test or unused, or one of `SPLIT_NAMES`: for `protocol: official`
    asr       words from a speech recogniser, beside the reference in `text`

Required are `label`, `speaker`, and `audio` or `text`. Where the entry asks for votes or attributes
(`targets`), there are the columns of `_votes/own_tables.py` as well, `label` may be missing, and so
may be its cell in a row with votes or values.

Layouts, by what `file` names:

    a .csv or .jsonl file           UTF-8; with no columns but these, unless `columns` is given
    a .parquet file, a folder of    Hugging Face `datasets`: other columns are left alone, integers
    such, or a pattern              of a ClassLabel become its names, the split comes from the path
    (data/train-*.parquet)          (train, validation, dev, test ...) where no column says it
    a folder by `save_to_disk`      the same, with or without splits
    a folder with metadata.csv or   `audiofolder`: the column `file_name` is the path of the audio,
    metadata.jsonl, or such a file  relative to that file

Audio inside a table is written below the root once, under `heronry_audio/`. A row with empty audio
is rejected alone; all other problems are reported together, and the corpus is refused. All layouts
are in one file, since a row is read the same in each.
"""

from __future__ import annotations

import functools
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

from features.corpora._tables.cells import EmptyText, identity, is_missing, number, path, spoken
from features.corpora._tables.embedded_audio import unpack
from features.corpora._tables.layouts import find_tables
from features.corpora._tables.parquet import Shard
from features.corpora._tables.rows import (
    COLUMNS,
    DECODED,
    SPLIT_NAMES,
    Beyond,
    Reading,
    check_relative,
    raise_faults,
)
from features.corpora._tables.text import TextTable
from features.corpora._tables.unlabelled import SUFFIXES as SUFFIXES
from features.corpora._tables.unlabelled import read_unlabelled as read_unlabelled
from features.corpora._votes.own_tables import (
    Scales,
    Value,
    checked_scales,
    classes_that_occur,
    read_ratings_table,
    row_targets,
    with_ratings,
    without_column,
)
from features.corpus.adapter import UNPACKED, CorpusFactory, Item, Source, Target
from features.corpus.manifest import SPLITS, UNLABELLED
from features.corpus.ratings import Rating
from features.corpus.utterance import Utterance
from features.errors import ManifestError, ParamsError
from features.files.root_paths import RootPaths


@dataclass
class _Table:
    """A table, our names of its columns, its items, and the place of each row for messages."""

    source: TextTable | Shard
    reading: Reading
    columns: set[str]
    items: list[Item] = field(default_factory=list)
    places: list[str] = field(default_factory=list)


class ManifestCorpus:
    """Adapter of a corpus that tables describe.

    Args:
        root: Folder of the corpus.
        file: Tables relative to `root`: a file, a folder (`.`: the root itself) or a pattern.
        classes: Class names in the order of the model's outputs; None: those that occur, sorted.
        columns: Names of the columns above to the table's, such as
            `{label: emotion, text: transcription}`; to an empty name where the table's column of
            that name is something else. None: the table uses the names above.
        targets: What is asked for of classes, votes and attributes.
        attributes: Lowest and highest value of each attribute, such as `{arousal: [1, 5]}`; a scale
            is never guessed from the numbers.
        empty_text: Whether an empty cell of `text` or `asr` is missing (`drop`), or an utterance
            without words, of which a text encoder reads its special tokens (`encode`). Null and
            NaN are missing in any case.
        ratings: Table of what each rater said, relative to `root`. Votes, and attributes that the
            other tables have no column of, are counted and averaged from it, without ratings of the
            speakers themselves. None: there is none.
    """

    source: ClassVar[Source] = Source(
        title="A corpus described by a table",
        licence="as its owner says",
        citation="as its owner says",
        obtain="It is the user's own.",
    )
    public_licence: ClassVar[str] = "other"
    offers: ClassVar[tuple[Target, ...]] = ("classes", "votes", "attributes")

    def __init__(
        self,
        root: Path,
        *,
        file: str = "manifest.csv",
        classes: list[str] | None = None,
        columns: dict[str, str] | None = None,
        targets: tuple[Target, ...] = ("classes",),
        attributes: dict[str, tuple[Value, Value]] | None = None,
        empty_text: EmptyText = "drop",
        ratings: str | None = None,
    ) -> None:
        self.scales = checked_scales(attributes or {}, targets)
        if ratings is not None:
            check_relative(ratings)
            if tuple(targets) == ("classes",):
                raise ParamsError(
                    f"ratings: {ratings} with targets [classes]; expected votes or attributes "
                    "among the targets, which ratings are of: add them, or leave it out"
                )
        self._targets, self._ratings_file, self._empty = targets, ratings, empty_text
        self._said: tuple[Rating, ...] = ()
        self._beyond = Beyond(tuple(self.scales), "votes" in targets)
        unknown = sorted(n for n in set(columns or ()) - set(COLUMNS) if not self._beyond.holds(n))
        if unknown:
            expected = [*COLUMNS, *self._beyond.names]
            raise ParamsError(f"columns: given {unknown}; expected some of {expected}")
        self._root, self._file, self._columns = root, file, columns
        self._given = None
        if classes is not None:
            self._given = tuple(identity("classes", c, known=classes) or "" for c in classes)

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the model's outputs."""
        if self._given is not None:
            return self._given
        # Once the audio is unpacked, rows without any do not count.
        # `cached_property` keeps its value there: this does not unpack any audio.
        items = vars(self).get("_items") or self.preview()
        names = {name for item in items for name in (item.label, *(item.votes or ())) if name}
        return tuple(sorted(names))

    def ratings(self) -> Iterator[Rating]:
        """What each rater said, of the table of ratings."""
        yield from self._said

    def tables(self) -> Iterator[Path]:
        """Tables that `file` and `ratings` name, and what `save_to_disk` wrote beside them."""
        if self._ratings_file is not None:
            yield self._root / self._ratings_file
        yield self._root / self._file / "dataset_dict.json"
        for table in find_tables(self._root, self._file):
            yield table.path
            if table.path.suffix == ".arrow":
                yield from table.path.parent.glob("*.json")

    def items(self) -> Iterator[Item]:
        """All rows, in the order of the tables.

        Raises:
            ManifestError: Listing what is wrong with the tables, by line or row.
        """
        yield from self._items

    def preview(self) -> Iterator[Item]:
        """All rows, without audio that is inside their tables.

        Raises:
            ManifestError: As `items`.
        """
        for table in self._tables:
            for item in table.items:
                inside = table.reading.embedded is not None
                # Such a row may have no text: an empty one stands for the audio.
                yield replace(item, audio=None, text=item.text or "") if inside else item

    @functools.cached_property
    def _items(self) -> tuple[Item, ...]:
        # Not in the constructor: unpacking may take gigabytes.
        return tuple(item for table in self._tables for item in self._with_audio(table))

    @functools.cached_property
    def _tables(self) -> list[_Table]:
        tables, faults = self._read()
        items = [item for table in tables for item in table.items]
        places = [place for table in tables for place in table.places]
        faults += _repeated(items, places) + _outside(items, places, self._given)
        if self._ratings_file is not None:
            given, ids = self._given or (), {item.id for item in items}
            path, name = self._root / self._ratings_file, self._ratings_file
            rated = read_ratings_table(path, name, ids, self.scales, given)
            faults += rated.faults
            self._said = tuple(rated.ratings)
        raise_faults(self._root / self._file, faults)
        for table in tables:
            table.places.clear()
        held = {name for table in tables for name in table.columns}
        raise_faults(self._root / self._file, without_column(self.scales, held, self._said))
        if self._said:
            classes = self._given or classes_that_occur(items, self._said)
            for table in tables:
                table.items = with_ratings(
                    *(table.items, self._said, table.columns),
                    *(self._targets, self.scales, classes),
                )
        return tables

    def _read(self) -> tuple[list[_Table], list[str]]:
        tables, faults = [], []
        numbers: Counter[str] = Counter()
        paths, given = RootPaths(self._root), self._given or ()
        for source in find_tables(self._root, self._file):
            reading = source.read(self._columns, self._beyond)
            rows = reading.rows[::-1]
            reading.rows.clear()
            table = _Table(source, reading, set(rows[-1].cells) if rows else set())
            faults += reading.faults
            while rows:  # each row goes as its item comes: both of all take twice the memory
                row = rows.pop()
                cells = row.cells
                if isinstance(source, Shard):  # tables that people do not edit
                    cells = _numbered(cells, numbers, embedded=bool(table.reading.embedded))
                try:
                    table.items.append(
                        _item(cells, row.cells.get("id"), given, paths, self.scales, self._empty)
                    )
                    table.places.append(row.place)
                except ManifestError as error:
                    id = row.cells.get("id")
                    named = "" if is_missing(id) or repr(id) in str(error) else f" (id {id!r})"
                    faults.append(f"{row.place}: {error}{named}")
            tables.append(table)
        return tables, faults

    def _with_audio(self, table: _Table) -> Iterable[Item]:
        column, source = table.reading.embedded, table.source
        if column is None or isinstance(source, TextTable):
            return table.items
        return unpack(table.items, source, column, self._root)


def _numbered(cells: dict[str, Any], numbers: Counter[str], *, embedded: bool) -> dict[str, Any]:
    """Cells with an id from the row's number in its split, if nothing else identifies the row."""
    split = str(cells.get("split") or "row")
    split = SPLIT_NAMES.get(split.strip().lower(), split.strip())
    count = numbers[split]
    numbers[split] += 1
    if is_missing(cells.get("id")) and is_missing(cells.get("audio")):
        cells = cells | {"id": f"{split}-{count:06d}"}
    # In place of the path that `unpack` sets, so that the row counts as one with audio.
    return cells | {"audio": UNPACKED} if embedded else cells


def _item(
    row: Mapping[str, Any],
    given_id: Any,
    classes: Sequence[str],
    paths: RootPaths,
    scales: Scales,
    empty: EmptyText,
) -> Item:
    notes: list[str] = []
    if is_missing(given_id) and _spelt(given_id):
        notes.append(f"id {given_id!r} is read as missing")
    label = identity("label", row.get("label"), notes, known=classes)
    targets = row_targets(row, scales, classes)
    id, dialogue, gender, sentence = (
        identity(name, row.get(name), notes) for name in ("id", "dialogue", "gender", "sentence")
    )
    text, asr = (spoken(name, row.get(name), notes, empty=empty) for name in ("text", "asr"))
    start, stop, turn = (number(name, row.get(name)) for name in ("start", "stop", "turn"))
    audio = _audio(row.get("audio"), paths)
    if id is None and audio is not None:
        id = identity("id", str(PurePosixPath(audio).with_suffix("")))
    if id is None:
        raise ManifestError("id and audio are empty; expected an id where there is no audio")
    # The checks of a written manifest, made here while the line is known.
    Utterance(id, audio=audio, text=text, start=start or 0.0, stop=stop, asr=asr)
    split = _split(row.get("split"))
    learnt = (label, targets.votes, targets.values)
    lacks_all = split != UNLABELLED and all(target is None for target in learnt)
    if turn is not None and not turn.is_integer():
        raise ManifestError(f"turn {row.get('turn')!r}; expected an integer from 0")
    return Item(
        id=id,
        label=label,
        speaker=_speaker(row.get("speaker"), notes),
        audio=audio,
        text=text,
        start=start,
        stop=stop,
        dialogue=dialogue,
        turn=None if turn is None else int(turn),
        gender=gender,
        sentence=sentence,
        split=split,
        excluded=_unlabelled(row.get("label")) if lacks_all else None,
        asr=asr,
        notices=tuple(notes),
        votes=targets.votes,
        votes_outside=targets.votes_outside,
        values=targets.values,
    )


def _audio(cell: Any, paths: RootPaths) -> str | None:
    if isinstance(cell, list | dict):
        raise ManifestError(f"audio holds {DECODED}")
    audio = path("audio", cell)
    if audio is None:
        return None
    try:
        check_relative(audio)
    except ManifestError as error:
        raise ManifestError(f"{error}{paths.hint(audio)}") from error
    if not PurePosixPath(audio).name:
        raise ManifestError(f"audio {audio!r}; expected the path of a file")
    return str(PurePosixPath(audio))


def _speaker(cell: Any, notes: list[str]) -> str:
    speaker = identity("speaker", cell, notes)
    if speaker is None:
        given = f"{cell!r}, which is read as missing" if _spelt(cell) else "empty"
        raise ManifestError(f"speaker is {given}; expected who speaks, since splits rest on it")
    return speaker


def _split(cell: Any) -> str | None:
    given = identity("split", cell)
    split = None if given is None else SPLIT_NAMES.get(given.lower(), given)
    if split is not None and split not in SPLITS:
        raise ManifestError(f"split {given!r}; expected one of {SPLITS}")
    return split


def _unlabelled(cell: Any) -> str:
    if _spelt(cell):
        return f"its label {cell!r} is read as missing; if it is a class, name it in `classes`"
    return "it has no label"


def _spelt(cell: Any) -> bool:
    return isinstance(cell, str) and bool(cell.strip())


def _repeated(items: Sequence[Item], places: Sequence[str]) -> list[str]:
    held = _places((item.id for item in items), places)
    repeated = {id: at for id, at in held.items() if len(at) > 1}
    splits = dict(zip(places, (item.split for item in items), strict=True))
    # Ids that begin again in each split are one fault, not one for each id.
    if len(repeated) > 1 and all(
        len({splits[a] for a in at}) == len(at) for at in repeated.values()
    ):
        (id, at), *_ = repeated.items()
        return [
            f"{len(repeated)} ids start again in each split, such as {id!r} in {_first(at)}; "
            f"expected each id once: put the split into them, such as {splits[at[0]]}-{id}"
        ]
    return [
        f"id {id!r} occurs in {_first(at)}; expected each id once: give the rows `id`s"
        for id, at in repeated.items()
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
    """The first five places, shortened where all are lines of a single file."""
    if all(place.startswith("line ") for place in places):
        return f"lines [{', '.join(place.removeprefix('line ') for place in places[:5])}]"
    return ", ".join(places[:5])


def _places(values: Iterable[str | None], places: Sequence[str]) -> dict[str | None, list[str]]:
    held = defaultdict(list)
    for value, place in zip(values, places, strict=True):
        held[value].append(place)
    return held


build: CorpusFactory = ManifestCorpus
