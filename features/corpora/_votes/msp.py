"""Raters' tables of MSP-Podcast 1.6 to 2.0, one row a rating, in all shapes they were published in.

- `labels_detailed.csv` of 1.6 and 2.0: a column for each of worker, primary and secondary emotion
  and the three attributes. Columns are found by name: their order differs between files.
- `labels_detailed.csv` of 1.7 to 1.12 and of the challenge of 2024: FileName and one cell of text,
  `WORKER<id>; <primary>; <secondary,...>; A:<x>; V:<x>; D:<x>;`.
- `labels_detailed.json`: by file, then by worker, the names of the first shape; or by file a list
  `Workers` of such objects with a `Name`.

The primary may be free text (`Other-...`) with commas, quotes and semicolons, and the secondary is
absent in some rows.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from features.corpora._tables.text import (
    LFS_BEGIN,
    published_header,
    published_rows,
    refuse_pointer,
)
from features.corpus.adapter import Source
from features.corpus.ratings import Rating
from features.errors import ManifestError
from features.files.records import opened, read_json

ATTRIBUTES = {"arousal": "EmoAct", "valence": "EmoVal", "dominance": "EmoDom"}
SCALE = (1.0, 7.0)
OTHER = "other"
TABLES = ("labels_detailed.csv", "labels_detailed.json")
_WORKERS = ("WorkerID", "Workers", "Worker")
_SIGNS = {"A": "EmoAct", "V": "EmoVal", "D": "EmoDom"}
_NUMBER = re.compile(r"\s*([AVD])\s*:\s*([^:]*)")
_MISSPELT = {"dissapointed": "disappointed"}


def read_msp_ratings(path: Path, source: Source) -> Iterator[tuple[str, Rating]]:
    """Place of each rating for messages, and the rating, whose id is the name of the clip.

    Raises:
        ManifestError: If the table cannot be read, or a row is of no known shape, naming the line.
    """
    cells = _from_json(path) if path.suffix == ".json" else _from_csv(path, source)
    for place, row in cells:
        try:
            yield place, _rating(row)
        except ManifestError as error:
            raise ManifestError(f"{place}: {error}") from error


def split_detail(cell: str) -> dict[str, str]:
    """The parts of a cell `EmoDetail` by the columns of the other tables.

    The numbers are found by their letters from the right, as the primary emotion may be any text;
    of what lies between the worker and them, the last part is the secondary emotion.

    Raises:
        ManifestError: If it does not begin with a worker and end in the three numbers.

    >>> split_detail("WORKER00000023; Other-well; so; Happy,Amused; A:4; V:3; D:5;")[
    ...     "EmoClass_Major"
    ... ]
    'Other-well; so'
    """
    parts = cell.strip().rstrip("; ").split(";")
    found: dict[str, str] = {}
    while parts and len(found) < len(_SIGNS):
        match = _NUMBER.fullmatch(parts[-1])
        if match is None or _SIGNS[match[1]] in found:
            break
        found[_SIGNS[match[1]]] = match[2].strip()
        parts.pop()
    if len(found) < len(_SIGNS) or len(parts) < 2:
        raise ManifestError(
            f"{cell!r} is no rating; expected a worker, primary and secondary emotions, and the "
            "numbers A:, V: and D:, separated by semicolons"
        )
    worker, *between = parts
    primary, secondary = (between[:-1], between[-1]) if len(between) > 1 else (between, "")
    return found | {
        "WorkerID": worker.strip(),
        "EmoClass_Major": ";".join(primary).strip(),
        "EmoClass_Second": secondary.strip(),
    }


def _from_csv(path: Path, source: Source) -> Iterator[tuple[str, Mapping[str, Any]]]:
    header = published_header(path, source)
    worker = next((name for name in _WORKERS if name in header), None)
    if worker is None and len(header) == 2 and "FileName" in header:
        (detail,) = set(header) - {"FileName"}
        for place, row in published_rows(path, ("FileName", detail), source, skip_spaces=True):
            try:
                yield place, split_detail(row[detail]) | {"FileName": row["FileName"]}
            except ManifestError as error:
                raise ManifestError(f"{place}: {error}") from error
        return
    names = ("FileName", worker or "WorkerID", "EmoClass_Major", "EmoClass_Second")
    columns = (*names, *ATTRIBUTES.values())
    for place, row in published_rows(path, columns, source, skip_spaces=True):
        yield place, row | {"WorkerID": row[names[1]]}


def _from_json(path: Path) -> Iterator[tuple[str, Mapping[str, Any]]]:
    with opened(path) as file:
        refuse_pointer(path, file.read(len(LFS_BEGIN)).decode(errors="replace"))
    for name, held in read_json(path).items():
        place = f"{path}, {name!r}"
        rows: list[Any] = [None]
        if isinstance(held, dict) and isinstance(held.get("Workers"), list):
            rows = [
                isinstance(o, dict) and o | {"WorkerID": o.get("Name")} for o in held["Workers"]
            ]
        elif isinstance(held, dict):
            rows = [isinstance(o, dict) and o | {"WorkerID": worker} for worker, o in held.items()]
        if not all(rows):
            raise ManifestError(f"{place}: expected an object with one object for each worker")
        for row in rows:
            yield place, row | {"FileName": name}


def _rating(row: Mapping[str, Any]) -> Rating:
    name, worker = (str(row.get(key) or "").strip() for key in ("FileName", "WorkerID"))
    if not name or not worker:
        raise ManifestError(f"FileName {name!r} and worker {worker!r}; expected both")
    primary = str(row.get("EmoClass_Major") or "").strip()
    second = str(row.get("EmoClass_Second") or "").strip()
    # It usually begins with the primary again, whose free text may hold commas.
    beside = f"{second},".removeprefix(f"{primary},")
    tags = map(emotion, filter(str.strip, beside.split(",")))
    label = emotion(primary) if primary else None
    values = {
        attribute: value
        for attribute, column in ATTRIBUTES.items()
        if (value := scaled(column, row.get(column))) is not None
    }
    return Rating(
        id=name.removesuffix(".wav"),
        rater=worker.removeprefix("WORKER"),
        label=label,
        secondary=tuple(dict.fromkeys(tag for tag in tags if tag != label)) or None,
        values=values or None,
    )


def emotion(text: str) -> str:
    """Name of an emotion in lower case; free text is `other`.

    >>> emotion("Happy"), emotion(" Other-so, so"), emotion("Dissapointed")
    ('happy', 'other', 'disappointed')
    """
    name = " ".join(text.lower().split())
    return OTHER if name.startswith(OTHER) else _MISSPELT.get(name, name)


def scaled(column: str, cell: Any) -> float | None:
    """A number from 1 to 7; None of an empty cell.

    Raises:
        ManifestError: If it is anything else.
    """
    text = str(cell if cell is not None else "").strip()
    if text.lower() in ("", "nan"):
        return None
    try:
        value = float(text)
    except ValueError:
        value = float("nan")
    low, high = SCALE
    if not low <= value <= high:
        raise ManifestError(f"{column} is {text!r}; expected a number from {low:g} to {high:g}")
    return int(value) if value.is_integer() else value
