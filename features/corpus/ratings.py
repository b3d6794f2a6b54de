"""What each rater said about an utterance: `data/<corpus>/ratings/ratings.jsonl`.

A folder of its own, since evaluation reads it (agreement, ceilings) and training only where the
settings ask for estimates other than the corpus's own. The file is empty for a corpus that
publishes no ratings. Names of raters are pseudonyms already; no report shows them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from features.corpus.frozen import frozen
from features.corpus.utterance import check_id
from features.errors import ManifestError
from features.files.records import check_unique, read_rows, write_rows

RATINGS = "ratings.jsonl"


@dataclass(frozen=True)
class Rating:
    """What one rater said about one utterance.

    Attributes:
        id: Utterance.
        rater: Who rated, unique in the corpus.
        self: Whether the rater is the speaker; None where the corpus has no such ratings.
        label: What the rater chose: a class of the corpus, or another name, which is none of them.
        secondary: What the rater named beside it, likewise.
        values: Number on the corpus's own scale by attribute; unknown ones are absent.
    """

    id: str
    rater: str
    self: bool | None = None
    label: str | None = None
    secondary: tuple[str, ...] | None = None
    values: Mapping[str, float] | None = field(default=None, hash=False)

    def __post_init__(rating) -> None:  # noqa: N805 - `self` is a field
        check_id(rating.id)
        if not isinstance(rating.rater, str) or not rating.rater:
            raise ManifestError(
                f"rating of {rating.id!r}: rater is {rating.rater!r}; expected text"
            )
        what = f"rating of {rating.id!r} by {rating.rater!r}"
        if not isinstance(rating.self, bool | None):
            raise ManifestError(f"{what}: self is {rating.self!r}; expected true or false")
        if not isinstance(rating.secondary, list | tuple | None):
            raise ManifestError(f"{what}: secondary is {rating.secondary!r}; expected a list")
        names = (rating.label, *(rating.secondary or ()))
        if not all(name is None or (isinstance(name, str) and name) for name in names):
            raise ManifestError(f"{what}: label and secondary are {names!r}; expected text")
        if rating.secondary is not None:
            object.__setattr__(rating, "secondary", tuple(rating.secondary))
        object.__setattr__(rating, "values", frozen(f"{what}: values", rating.values))


def read_ratings(folder: Path) -> list[Rating]:
    """Read `ratings.jsonl` of `data/<corpus>/ratings`; empty for a corpus without ratings.

    Raises:
        ManifestError: If it is missing or malformed, or a rater rated an utterance twice.
    """
    path = folder / RATINGS
    found = list(read_rows(path, Rating))
    check_unique((f"{each.id} by {each.rater}" for each in found), str(path))
    return found


def write_ratings(folder: Path, ratings: Iterable[Rating]) -> None:
    """Write `ratings.jsonl` into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_rows(folder / RATINGS, ratings)
