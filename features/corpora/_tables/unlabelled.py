"""Read tables of utterances that are to be predicted: as a manifest's, without label and speaker.

Columns are those of `features.corpora.manifest`; none but `id`, `audio` or `text` is required, and
others than those are left alone. Audio that is inside of a table is written below its folder, under
`heronry_audio/`, as that of a corpus. Paths of audio count from the table's folder; they may be
absolute, or lead out of it, since a table is written for this machine.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from features.corpora._tables.cells import identity, number, path, words
from features.corpora._tables.embedded_audio import unpack
from features.corpora._tables.layouts import find_tables
from features.corpora._tables.parquet import Shard
from features.corpora._tables.rows import DECODED, Beyond, raise_faults
from features.corpus.adapter import UNPACKED, Item
from features.corpus.utterance import Utterance
from features.errors import ManifestError

SUFFIXES = (".csv", ".tsv", ".jsonl", ".parquet", ".arrow")  # of files that are tables


@dataclass(frozen=True)
class Unlabelled:
    """Rows of a table.

    Attributes:
        items: The rows in order; `audio` is relative to the table's folder, or absolute, and
            `speaker` is empty where the table names none.
        ignored: Columns of a text table that are not read.
    """

    items: tuple[Item, ...]
    ignored: tuple[str, ...]


def read_unlabelled(table: Path) -> Unlabelled:
    """Read a table of utterances.

    Args:
        table: File whose name ends in one of `SUFFIXES`.

    Raises:
        ManifestError: If it cannot be read, a cell cannot be used, or an id occurs twice, listing
            all such lines.
    """
    faults: list[str] = []
    items: list[Item] = []
    places: dict[str, str] = {}
    ignored: set[str] = set()
    for source in find_tables(table.parent, table.name):
        reading = source.read(None, Beyond(unlabelled=True))
        faults += reading.faults
        ignored.update(reading.ignored)
        found: list[Item] = []
        for row in reading.rows:
            cells = row.cells | ({"audio": UNPACKED} if reading.embedded else {})
            try:
                item = _item(cells, row.place)
            except ManifestError as error:
                faults.append(f"{row.place}: {error}")
                continue
            if item.id in places:
                first = places[item.id]
                faults.append(f"id {item.id!r} in {first} and {row.place}; expected each id once")
            places[item.id] = row.place
            found.append(item)
        items += _with_audio(found, source, reading.embedded, table.parent)
    raise_faults(table, faults)
    return Unlabelled(tuple(items), tuple(sorted(ignored)))


def _with_audio(
    items: list[Item], source: Any, embedded: str | None, folder: Path
) -> Iterable[Item]:
    if embedded is None or not isinstance(source, Shard):
        return items
    return unpack(items, source, embedded, folder)


def _item(row: Mapping[str, Any], place: str) -> Item:
    id, speaker, dialogue = (
        identity(name, row.get(name)) for name in ("id", "speaker", "dialogue")
    )
    text, asr = (words(name, row.get(name)) for name in ("text", "asr"))
    start, stop, turn = (number(name, row.get(name)) for name in ("start", "stop", "turn"))
    if isinstance(row.get("audio"), list | dict):
        raise ManifestError(f"audio holds {DECODED}")
    audio = path("audio", row.get("audio"))
    if turn is not None and not turn.is_integer():
        raise ManifestError(f"turn {row.get('turn')!r}; expected an integer from 0")
    if id is None and audio is not None:
        id = place if audio == UNPACKED else _named(audio, start, stop)
    if id is None:
        raise ManifestError("id and audio are empty; expected an id where there is no audio")
    # The checks of an utterance, made here while the line is known.
    Utterance(id, audio=audio or "", text=text, asr=asr, start=start or 0.0, stop=stop)
    return Item(
        id=id,
        label=None,
        speaker=speaker or "",
        audio=audio,
        text=text,
        start=start,
        stop=stop,
        dialogue=dialogue,
        turn=None if turn is None else int(turn),
        asr=asr,
    )


def _named(audio: str, start: float | None, stop: float | None) -> str:
    """Id of a row without one: the path, with its span."""
    if start is None and stop is None:
        return audio
    return f"{audio}#{start or 0:g}-{'' if stop is None else f'{stop:g}'}"
