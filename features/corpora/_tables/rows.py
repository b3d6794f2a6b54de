"""Rows of a table under heronry's own column names: columns, splits, paths, lists of problems.

Problems are collected, not raised, so that all problems of a corpus are reported at once.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import Any

from features.corpora._tables.cells import is_missing
from features.errors import ManifestError

COLUMNS = (
    "id", "audio", "text", "start", "stop", "label", "speaker", "dialogue", "turn", "gender",
    "sentence", "split", "asr",
)  # fmt: skip
VOTES, VOTES_OF, VOTES_OUTSIDE = "votes", "votes_", "votes_outside"  # columns of raters' votes
FILE_NAME = "file_name"  # column of paths in the metadata file of an audiofolder
DECODED = (
    "samples of decoded audio, not a file; expected the file's bytes or path: cast the column by "
    "`dataset.cast_column('audio', Audio(decode=False))` and save it again, or write WAV files"
)
LISTED = 20  # problems that a message quotes
LONGEST = 600  # characters of one of them
# Common names of the splits; our names are the values.
SPLIT_NAMES = {
    name: split
    for split, names in (
        ("train", "train training"),
        ("valid", "valid validation val dev development"),
        ("test", "test testing eval evaluation"),
    )
    for name in names.split()
}


@dataclass(frozen=True)
class Beyond:
    """Columns that a table may have beside `COLUMNS`, where more than classes are asked for.

    Attributes:
        attributes: Attributes, each a column of numbers.
        votes: Whether there may be columns of votes.
        unlabelled: Whether its utterances are to be predicted: labels and speakers may be missing,
            and there may be any other columns, which are not read.
    """

    attributes: tuple[str, ...] = ()
    votes: bool = False
    unlabelled: bool = False

    def holds(self, name: str) -> bool:
        """Whether a column is one of them."""
        return name in self.attributes or (
            self.votes and (name == VOTES or name.startswith(VOTES_OF))
        )

    @property
    def names(self) -> tuple[str, ...]:
        """Their names, as messages list them."""
        votes = (VOTES, f"{VOTES_OF}<class>", VOTES_OUTSIDE) if self.votes else ()
        return (*self.attributes, *votes)


CLASSES_ALONE = Beyond()


@dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
        place: Name of the row in messages, such as `line 3`.
        cells: Cells by our own column names.
    """

    place: str
    cells: dict[str, Any]


@dataclass
class Reading:
    """Rows of a table, and its problems.

    Attributes:
        rows: The readable rows.
        faults: Problems, one line each; a corpus with any is refused.
        embedded: The table's name of the column that contains audio files themselves, or None.
        ignored: Columns of a text table that are not read, where there may be any.
    """

    rows: list[Row] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    embedded: str | None = None
    ignored: list[str] = field(default_factory=list)


def choose_columns(
    columns: Mapping[str, str] | None, names: Sequence[str], beyond: Beyond = CLASSES_ALONE
) -> tuple[dict[str, str], list[str]]:
    """Map our column names to those of a table.

    Args:
        columns: Chosen names: ours to the table's; an empty one says that the table has no such
            column. A column not named here goes by our own name, unless it is chosen for another.
        names: Names of the table's columns.
        beyond: Columns that it may have beside ours.

    Returns:
        Our names to the table's, and problems.
    """
    given = columns or {}
    twice = repeated(names)
    faults = [f"columns {twice} occur twice; expected each once"] if twice else []
    faults += [
        f"columns.{ours} names {theirs!r}, which is none of its columns {list(names)}"
        for ours, theirs in given.items()
        if theirs and theirs not in names
    ]
    taken = {ours: theirs for ours, theirs in given.items() if theirs in names}
    own = {
        name: name
        for name in (*COLUMNS, *filter(beyond.holds, names))
        if name in names and name not in given and name not in taken.values()
    }
    if FILE_NAME in names and "audio" not in own | dict(given):
        own["audio"] = FILE_NAME
    return taken | own, faults


def lacking_columns(
    chosen: Mapping[str, str], names: Sequence[str], beyond: Beyond = CLASSES_ALONE
) -> list[str]:
    """Required columns that a table lacks, in at most one line.

    A label is required where there is nothing else to learn.
    """
    required = ("label", "speaker") if beyond == CLASSES_ALONE else ("speaker",)
    lacking = [name for name in required if name not in chosen and not beyond.unlabelled]
    if not chosen.keys() & {"audio", "text"}:
        lacking.append("audio or text")
    if not lacking:
        return []
    return [
        f"it has no column {', nor '.join(lacking)}, but {list(names)}: add it, or map it by "
        "`columns`"
    ]


def repeated(names: Sequence[str]) -> list[str]:
    """Names that occur more than once, sorted."""
    return [] if len(set(names)) == len(names) else sorted({n for n in names if names.count(n) > 1})


def with_split(cells: dict[str, Any], split: str | None) -> dict[str, Any]:
    """Cells with the split of their file, unless they name one themselves."""
    return cells | {"split": split} if is_missing(cells.get("split")) else cells


def split_of(place: str) -> str | None:
    """The split that a path names, searched from its last part; None if none or several.

    >>> split_of("data/validation-00000-of-00002.parquet"), split_of("default/dev/0.parquet")
    ('valid', 'valid')
    >>> split_of("latest/contest.parquet") is None
    True
    """
    for part in reversed(PurePosixPath(place).parts):
        words = re.split(r"[^a-z]+", part.lower())
        named = {SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES}
        if len(named) == 1:
            return named.pop()
    return None


def check_relative(path: str) -> None:
    """Raise `ManifestError` for a path that could leave the corpus root."""
    parts, windows = PurePosixPath(path).parts, PureWindowsPath(path)
    if path.startswith("/") or windows.drive or ".." in parts or ".." in windows.parts:
        raise ManifestError(f"path {path!r}; expected a relative one below the corpus root")


def raise_faults(path: Path, faults: Sequence[str]) -> None:
    """Raise `ManifestError` listing the problems of a table, if there are any."""
    if faults:
        more = [f"and {len(faults) - LISTED} more"] if len(faults) > LISTED else []
        listed = "\n  ".join([*map(_shortened, faults[:LISTED]), *more])
        raise ManifestError(f"{path}: problems to mend:\n  {listed}")


def _shortened(fault: str) -> str:
    """A line without the middle of a long cell that it quotes."""
    if len(fault) <= LONGEST:
        return fault
    return f"{fault[: LONGEST // 2]} ... {fault[-LONGEST // 2 :]}"
