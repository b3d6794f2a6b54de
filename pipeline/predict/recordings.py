"""What is to be predicted: files, folders, patterns or a table, with the words that are known.

A recording is named by its path as it was given, so that a relative path stays relative. What
cannot be decoded fails later, by itself.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from features.arguments import counted
from features.audio.recordings import find_recordings
from features.corpora.manifest import SUFFIXES as TABLES
from features.corpora.manifest import read_unlabelled
from features.errors import ManifestError, ParamsError
from features.files.root_paths import held


@dataclass(frozen=True)
class Recording:
    """One recording, a span of one, or words alone.

    Attributes:
        id: Path as it was given, or the id of a table's row.
        audio: Path of the file; None: words alone.
        text: What is said, where that is known; it may be empty.
        asr: What a recogniser heard.
        start: Seconds into the file at which it begins; None: at its beginning.
        stop: Seconds into the file at which it ends; None: at its end.
        speaker: Who speaks; empty where that is not known.
        dialogue: Conversation that it belongs to; None: none.
        turn: Position in the dialogue.
    """

    id: str
    audio: Path | None
    text: str | None = None
    asr: str | None = None
    start: float | None = None
    stop: float | None = None
    speaker: str = ""
    dialogue: str | None = None
    turn: int | None = None


@dataclass(frozen=True)
class Given:
    """All recordings in order, and notes about what was not read.

    Attributes:
        recordings: At least one.
        table: Whether a table names them, and so their dialogues.
        notes: Lines for the user.
    """

    recordings: tuple[Recording, ...]
    table: bool = False
    notes: tuple[str, ...] = ()


def given_recordings(names: Sequence[str]) -> Given:
    """The recordings that the arguments of the command name.

    Args:
        names: Files, folders (with all below them), patterns such as `calls/*.wav`; or one table.

    Raises:
        ParamsError: If there is no such table, or a table beside others.
        ManifestError: If there is nothing of a name, no audio in a folder, or something wrong with
            a table.
    """
    tables = [name for name in names if Path(name).suffix.lower() in TABLES]
    if tables:
        if len(names) > 1:
            raise ParamsError(
                f"given the table {tables[0]} beside {len(names) - 1} more; expected one table "
                "alone, or recordings: name all recordings in one table"
            )
        return _of_table(Path(tables[0]))
    return Given(tuple(Recording(_id(str(path)), path) for path in find_recordings(names)))


def words_alone(text: str | None) -> Given:
    """Words without a recording.

    Raises:
        ParamsError: If there are none either.
    """
    if text is None:
        raise ParamsError(
            "given nothing to predict; expected recordings, a table, or --text with words alone"
        )
    return Given((Recording("text", None, text=text),))


def with_text(given: Given, text: str) -> Given:
    """The same with the words of its only recording.

    Raises:
        ParamsError: If there are several.
    """
    if len(given.recordings) > 1:
        raise ParamsError(
            f"--text: given the words of one recording for {len(given.recordings)}; expected "
            "--transcripts FILE, a table with the columns id (or audio) and text"
        )
    return dataclasses.replace(
        given, recordings=(dataclasses.replace(given.recordings[0], text=text),)
    )


def with_transcripts(given: Given, table: Path) -> Given:
    """The same with the words that a table has for some of the recordings.

    A row names a recording by `id`, the path as the command names it, or by `audio`, a path from
    the table's folder.

    Raises:
        ManifestError: If the table cannot be read, has no words, or names other recordings.
    """
    _check_table(table)
    rows = read_unlabelled(table).items
    if all(row.text is None for row in rows):
        raise ManifestError(
            f"{table} has no words; expected a column `text`, beside `id` or `audio`"
        )
    own = {each.id for each in given.recordings}
    by_path = {each.audio.resolve(): each.id for each in given.recordings if each.audio is not None}
    texts: dict[str, str] = {}
    unknown = []
    for row in rows:
        named = None if row.audio is None else by_path.get((table.parent / row.audio).resolve())
        id = row.id if row.id in own else named
        if id is None:
            unknown.append(row.id)
        elif row.text is not None:
            texts[id] = row.text
    if unknown:
        raise ManifestError(
            f"{table}: ids of no recording that is given: {counted(unknown)}; expected ids such as "
            f"{given.recordings[0].id!r}, or `audio` with paths from the table's folder"
        )
    return dataclasses.replace(
        given,
        recordings=tuple(
            dataclasses.replace(each, text=texts.get(each.id, each.text))
            for each in given.recordings
        ),
    )


def _of_table(path: Path) -> Given:
    _check_table(path)
    table = read_unlabelled(path)
    if not table.items:
        raise ManifestError(f"{path} has no rows; expected a row for each utterance")
    notes = []
    if table.ignored:
        notes.append(f"{path}: the columns {list(table.ignored)} are not read")
    recordings = tuple(
        Recording(
            id=item.id,
            audio=None if item.audio is None else path.parent / item.audio,
            text=item.text,
            asr=item.asr,
            start=item.start,
            stop=item.stop,
            speaker=item.speaker,
            dialogue=item.dialogue,
            turn=item.turn,
        )
        for item in table.items
    )
    return Given(recordings, table=True, notes=tuple(notes))


def _check_table(path: Path) -> None:
    if not path.is_file():
        raise ParamsError(
            f"there is no table {path}{_beside(path)}; expected a .csv, .tsv, .jsonl or .parquet "
            "file"
        )


def _beside(path: Path) -> str:
    """What the folder of a missing file holds, in brackets; empty if that is missing too."""
    folder = path.parent
    return f" (its folder holds {held(folder, path.name)})" if folder.is_dir() else ""


def _id(path: str) -> str:
    """An id for a path: the path itself, but printable and without spaces at its ends."""
    shown = "".join(char if char.isprintable() else repr(char)[1:-1] for char in path)
    return shown.strip() or repr(path)


def check_ids(recordings: Iterable[Recording]) -> None:
    """Refuse two recordings of one id.

    Raises:
        ParamsError: Naming them.
    """
    twice = [id for id, times in Counter(each.id for each in recordings).items() if times > 1]
    if twice:
        raise ParamsError(f"given {counted(twice)} twice; expected each recording once")
