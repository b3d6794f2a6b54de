"""Writes utterances of recordings as a table, which `kind: manifest` reads as a corpus.

Columns: id, audio (relative to the table's folder), start, stop, speaker, dialogue (the recording),
turn (from 0, in order of start); text and label where any utterance has them.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

from features.errors import ManifestError
from features.files.csv_text import write_csv, write_sheet
from features.files.writing import replacing
from features.segmentation.segments import Fault, Segment

Speakers = Literal["given", "local", "recording", "folder"]
"""Who a speaker is: given names are the same person in all recordings; local: in one recording;
recording, folder: one speaker in each, whatever the segments say."""
COLUMNS = ("id", "audio", "start", "stop", "speaker", "dialogue", "turn")
OPTIONAL = ("text", "label")


def relative_paths(recordings: Sequence[Path], table: Path) -> tuple[dict[str, Path], list[Fault]]:
    """Recordings by their path relative to a table's folder, and those that no table can name.

    Raises:
        ManifestError: If some are not below that folder, from which paths in a table start.
    """
    folder = Path(os.path.normpath(table.parent.absolute()))
    found: dict[str, Path] = {}
    faults, outside = [], []
    for path in recordings:
        # Not resolved: a link in the folder of the table counts as below it.
        whole = Path(os.path.normpath(path.absolute()))
        if not whole.is_relative_to(folder):
            outside.append(whole)
            continue
        name = whole.relative_to(folder).as_posix()
        if name.isprintable() and name == name.strip():
            found[name] = path
        else:  # readers of tables strip cells, and refuse what is no text
            faults.append(Fault(str(path), f"its path {name!a} fits no table: rename it"))
    if outside:
        above = os.path.commonpath([*outside, folder])
        raise ManifestError(
            f"{outside[0]} ({len(outside)} in all) is not below the folder of {table}, from which "
            f"the paths in a table start; expected --out in a folder above all recordings, such as "
            f"{Path(above) / table.name}, or links to them below {folder}"
        )
    return found, faults


def write_manifest(table: Path, utterances: Mapping[str, Sequence[Segment]], who: Speakers) -> None:
    """Write a table of utterances, atomically.

    Args:
        table: The file.
        utterances: Utterances of each recording, by its path, in order of start.
        who: Who a speaker is.
    """
    every = [each for found in utterances.values() for each in found]
    optional = [name for name in OPTIONAL if any(getattr(each, name) for each in every)]
    stems = Counter(_stem(path) for path in utterances)

    def rows() -> Iterator[list[object]]:
        for path, found in utterances.items():
            dialogue = _stem(path) if stems[_stem(path)] == 1 else path
            for turn, each in enumerate(found):
                yield [
                    f"{dialogue}_{turn + 1:04d}",
                    path,
                    f"{each.start:.3f}",
                    f"{each.stop:.3f}",
                    _speaker(each, path, dialogue, who),
                    dialogue,
                    turn,
                    *(getattr(each, name) for name in optional),
                ]

    with replacing(table) as temporary:
        write_csv(temporary, [*COLUMNS, *optional], rows())


def write_faults(table: Path, faults: Sequence[Fault]) -> Path | None:
    """List what was left out beside a table; returns the list's path, None if there is nothing."""
    path = table.with_suffix(".rejected.csv")
    if not faults:
        path.unlink(missing_ok=True)  # of an earlier table
        return None
    with replacing(path) as temporary:
        write_sheet(temporary, Fault._fields, faults, errors="backslashreplace")
    return path


def _stem(path: str) -> str:
    return str(PurePosixPath(path).with_suffix(""))


def _speaker(segment: Segment, path: str, dialogue: str, who: Speakers) -> str:
    if who == "recording":
        return dialogue
    if who == "folder":
        folder = PurePosixPath(path).parent
        return "" if folder == PurePosixPath(".") else str(folder)
    return (
        f"{dialogue}/{segment.speaker}" if who == "local" and segment.speaker else segment.speaker
    )
