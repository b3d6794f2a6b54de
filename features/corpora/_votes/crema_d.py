"""Votes on the clips of CREMA-D by what listeners were given: the table `tabulatedVotes.csv`.

Each clip has three rows, and no column says which is which: the unnamed first cell is 100000 times
the kind of query (1 voice, 2 face, 3 both), plus the number of the clip. Taking rows by file name
alone would take the votes on voice and face together.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from features.corpora._tables.text import published_header, published_rows
from features.corpus.adapter import Source
from features.errors import ManifestError

TABLE = "tabulatedVotes.csv"
Modality = Literal["voice", "face", "audio_visual"]
KINDS: Mapping[str, int] = {"voice": 1, "face": 2, "audio_visual": 3}
NUMBER = ""  # the unnamed first column
_CLIPS = 100_000
_WHOLE = re.compile(r"\d+")


def read_crema_d_votes(
    path: Path, modality: Modality, classes: Mapping[str, str], source: Source
) -> dict[str, dict[str, float]]:
    """Votes on each clip, by its name in the table, of listeners to one modality.

    Args:
        path: The table.
        modality: What they were given.
        classes: Letters of the votes to classes.
        source: Description of the corpus, for messages.

    Raises:
        ManifestError: If the table cannot be read or has no row numbers, or a row is malformed.
    """
    if NUMBER not in published_header(path, source):
        raise ManifestError(
            f"{path} has no column of row numbers; expected the unnamed first one, which alone "
            f"tells votes on the voice from those on the face: {source.obtain}"
        )
    found: dict[str, dict[str, float]] = {}
    for place, row in published_rows(path, (NUMBER, *classes, "fileName", "numResponses"), source):
        name = row["fileName"].strip()
        number, total, *counts = (
            _whole(place, column, row[column]) for column in (NUMBER, "numResponses", *classes)
        )
        if number // _CLIPS not in KINDS.values():
            raise ManifestError(
                f"{place}: its number is {number}; expected 1xxxxx (voice), 2xxxxx (face) or "
                "3xxxxx (both)"
            )
        if sum(counts) != total or not total:
            raise ManifestError(
                f"{place}: {sum(counts)} votes in {', '.join(classes)} and {total} responses; "
                "expected as many, and one or more"
            )
        if number // _CLIPS != KINDS[modality]:
            continue
        if name in found:
            raise ManifestError(f"{place}: {name!r} has a second row of votes on {modality}")
        pairs = zip(classes.values(), counts, strict=True)
        found[name] = {emotion: count for emotion, count in pairs if count}
    return found


def _whole(place: str, column: str, cell: str) -> int:
    if not _WHOLE.fullmatch(cell.strip()):
        what = repr(column) if column else "the row number"
        raise ManifestError(f"{place}: {what} is {cell!r}; expected a whole number from 0")
    return int(cell)
