"""Votes, values of attributes, and ratings in tables that people make of their own corpora.

    votes            JSON object of classes to numbers of raters, or the same as text
    votes_<class>    number of raters who chose a class: a column each, in place of `votes`
    votes_outside    number of raters whose choice is none of the classes
    <attribute>      number on the scale that the corpus entry states

and in a table of ratings, one row a rater and utterance: `id`, `rater`, and of `label`, `secondary`
(names with commas between them, or a list), `self` (whether the rater is the speaker) and the
attributes at least one. A label `other` that is no class counts as outside the classes.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

from features.arguments import quoted
from features.corpora._tables.cells import identity, is_missing, scaled
from features.corpora._tables.rows import COLUMNS, VOTES, VOTES_OF, VOTES_OUTSIDE, repeated
from features.corpora._tables.text import numbered_rows
from features.corpora._votes.tally import Tally, averaged, tally
from features.corpus.adapter import Item, Target
from features.corpus.ratings import Rating
from features.errors import ManifestError, ParamsError
from features.files.json_text import Decoder
from features.ranges import Interval

OTHER = "other"
Scales = Mapping[str, tuple[float, float]]
Value = Annotated[float, Interval(ge=-1_000_000_000, le=1_000_000_000)]  # of an attribute
_RATING = ("id", "rater", "label", "secondary", "self")
_TRUE = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}


@dataclass(frozen=True)
class RowTargets:
    """Targets of a row, as in `features.corpus.adapter.Item`."""

    votes: Mapping[str, float] | None = None
    votes_outside: float | None = None
    values: Mapping[str, float] | None = None


def checked_scales(
    attributes: Mapping[str, tuple[float, float]], targets: Sequence[Target]
) -> dict[str, tuple[float, float]]:
    """Scales of the attributes of a corpus entry.

    Raises:
        ParamsError: If a scale or name is wrong, or they do not fit the targets.
    """
    if bool(attributes) != ("attributes" in targets):
        raise ParamsError(
            f"attributes: given {attributes!r} with targets {list(targets)}; expected the scale of "
            "each, such as {arousal: [1, 5]}, if attributes are among the targets, and only then"
        )
    for name, (low, high) in attributes.items():
        if name in (*COLUMNS, *_RATING) or _is_votes(name):
            raise ParamsError(f"attributes: given {name!r}; expected the name of no other column")
        if not -math.inf < low < high < math.inf:
            raise ParamsError(
                f"attributes.{name}: given {[low, high]}; expected its lowest and highest value"
            )
    return {name: (float(low), float(high)) for name, (low, high) in attributes.items()}


def _is_votes(column: str) -> bool:
    return column == VOTES or column.startswith(VOTES_OF)


def row_targets(cells: Mapping[str, Any], scales: Scales, classes: Sequence[str]) -> RowTargets:
    """Parse the votes and values of a row.

    Args:
        cells: Cells by our own column names.
        scales: Lowest and highest value of each attribute.
        classes: Class names where the corpus entry lists them.

    Raises:
        ManifestError: If a count or value cannot be right.
    """
    counts = _counts(cells, classes)
    outside = count(VOTES_OUTSIDE, cells.get(VOTES_OUTSIDE))
    if counts is not None and not any(counts.values()) and not outside:
        raise ManifestError("all votes are 0; expected one or more, or empty cells without votes")
    order = {name: place for place, name in enumerate(classes)}
    named = sorted(counts or (), key=lambda name: (order.get(name, len(order)), name))
    votes = {name: counts[name] for name in named if counts and counts[name]}
    return RowTargets(votes or None, outside, _values(cells, scales))


def _counts(cells: Mapping[str, Any], classes: Sequence[str]) -> dict[str, int] | None:
    """Votes by class; None without any cell of them."""
    by_column = {
        name.removeprefix(VOTES_OF): cell
        for name, cell in cells.items()
        if name.startswith(VOTES_OF) and name != VOTES_OUTSIDE and not is_missing(cell)
    }
    given = cells.get(VOTES)
    if is_missing(given):
        held: Any = by_column
    elif by_column:
        raise ManifestError(f"votes and votes_{min(by_column)} are both given; expected one form")
    else:
        held = given
    if isinstance(held, str):
        try:
            held = _DECODER.decode(held)
        except ValueError as error:
            raise ManifestError(
                f"votes {quoted(given)} is not JSON ({error}); expected an object such as "
                '{"happy": 3}'
            ) from error
    if not isinstance(held, Mapping):
        raise ManifestError(f'votes is {quoted(held)}; expected an object such as {{"happy": 3}}')
    found = {}
    for name, cell in held.items():
        if classes and name not in classes:
            raise ManifestError(f"votes for {name!r}; expected one of {list(classes)}")
        number = count(f"votes for {name!r}", cell)
        if number is not None:  # a struct of Parquet has all names in each row
            found[name] = number
    return found or None


def _each_once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    twice = repeated([name for name, _ in pairs])
    if twice:
        raise ValueError(f"{twice} occur twice")
    return dict(pairs)


_DECODER = Decoder(object_pairs_hook=_each_once)


def count(name: str, cell: Any) -> int | None:
    """Parse a number of raters; None if the cell is missing.

    Raises:
        ManifestError: If it is negative, has a fraction, or is no number.
    """
    value = scaled(name, cell, 0.0, 1e9, expected="a number of raters, whole and from 0")
    if value is not None and not float(value).is_integer():
        raise ManifestError(f"{name} is {cell!r}; expected a number of raters, whole and from 0")
    return None if value is None else int(value)


def _values(cells: Mapping[str, Any], scales: Scales) -> dict[str, float] | None:
    found = {}
    for name, (low, high) in scales.items():
        value = scaled(name, cells.get(name), low, high)
        if value is not None:
            found[name] = value
    return found or None


@dataclass
class RatingsTable:
    """Ratings of a table and its faults, one line each, with the place of the row."""

    ratings: list[Rating] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def read_ratings_table(
    path: Path, name: str, ids: Collection[str], scales: Scales, classes: Sequence[str]
) -> RatingsTable:
    """Read a table of ratings.

    Args:
        path: A CSV or JSON Lines file.
        name: Its name in messages.
        ids: Utterances of the corpus.
        scales: Lowest and highest value of each attribute.
        classes: Class names where the corpus entry lists them.
    """
    table = RatingsTable()
    if not path.is_file():
        table.faults.append(
            f"there is no table {name!r} of ratings; expected a .csv or .jsonl file"
        )
        return table
    places: dict[tuple[str, str], str] = {}
    unknown: dict[str, None] = {}
    for number, row in numbered_rows(path):
        place = f"{name} line {number}"
        if isinstance(row, str):
            table.faults.append(f"{place}: {row}")
            continue
        unknown |= dict.fromkeys(row.keys() - {*_RATING, *scales})
        try:
            rating = _rating(row, scales, classes)
            if rating.id not in ids:
                raise ManifestError(f"id {rating.id!r} is not in the manifest")
            before = places.setdefault((rating.id, rating.rater), place)
            if before != place:
                raise ManifestError(
                    f"rater {rating.rater!r} has rated {rating.id!r} in {before} already"
                )
        except ManifestError as error:
            table.faults.append(f"{place}: {error}")
        else:
            table.ratings.append(rating)
    if unknown:
        expected = [*_RATING, *scales]
        table.faults.insert(
            0,
            f"{name}: unknown columns {sorted(unknown)}; expected {expected}: take them out, or "
            "ask for what they hold by `targets` and `attributes`",
        )
    return table


def without_column(
    scales: Scales, columns: Collection[str], ratings: Iterable[Rating]
) -> list[str]:
    """Faults of attributes that no table has a column of, a line each."""
    rated = {name for rating in ratings for name in rating.values or ()}
    return [
        f"attributes.{name}: no table has a column {name!r}; expected one of numbers: add it, map "
        "it by `columns`, or leave the attribute out"
        for name in scales
        if name not in columns and name not in rated
    ]


def classes_that_occur(items: Iterable[Item], ratings: Iterable[Rating]) -> list[str]:
    """Classes, sorted: `other` is one where an utterance has it, and none for raters alone."""
    labels = {item.label for item in items}
    rated = {rating.label for rating in ratings if not rating.self} - {OTHER}
    return sorted(filter(None, labels | rated))


def with_ratings(
    items: Sequence[Item],
    ratings: Sequence[Rating],
    columns: Collection[str],
    targets: Sequence[Target],
    scales: Scales,
    classes: Sequence[str],
) -> list[Item]:
    """Items with what is counted and averaged of ratings where their table has no column for it.

    Args:
        items: Items of one table.
        ratings: Ratings of the corpus; those of the speakers themselves do not count.
        columns: Our names of the columns of the table.
        targets: What is asked for.
        scales: Lowest and highest value of each attribute.
        classes: Class names; other labels of ratings are outside.
    """
    heard = [rating for rating in ratings if not rating.self]
    votes = tally(heard, classes)
    counts = "votes" in targets and not any(map(_is_votes, columns))
    means, filled = averaged(heard), []
    for item in items:
        own, mean = item.values or {}, means.get(item.id, {})
        values = {
            name: own[name] if name in own else mean[name]
            for name in scales
            if name in own or (name in mean and name not in columns)
        }
        counted = vars(votes.get(item.id, Tally())) if counts else {}
        found = replace(item, values=values or None, **counted)
        lacks_all = (found.label, found.votes, found.values) == (None,) * 3
        filled.append(found if lacks_all else replace(found, excluded=None))
    return filled


def _rating(row: Mapping[str, Any], scales: Scales, classes: Sequence[str]) -> Rating:
    id, rater = identity("id", row.get("id")), identity("rater", row.get("rater"))
    if id is None or rater is None:
        raise ManifestError("id or rater is empty; expected both")
    label = _class_of("label", row.get("label"), classes)
    beside = row.get("secondary")
    if isinstance(beside, str):
        beside = beside.split(",")
    elif is_missing(beside):
        beside = ()
    names = [_class_of("secondary", each, classes) for each in _listed(beside)]
    own = row.get("self")
    said = None if is_missing(own) else _TRUE.get(str(own).strip().lower())
    if said is None and not is_missing(own):
        raise ManifestError(f"self is {own!r}; expected true or false")
    values = _values(row, scales)
    if label is None and values is None:
        raise ManifestError("it has neither a label nor a value of an attribute")
    return Rating(
        *(id, rater, said, label),
        secondary=tuple(name for name in dict.fromkeys(names) if name not in (None, label)) or None,
        values=values,
    )


def _listed(value: Any) -> Iterable[Any]:
    if not isinstance(value, list | tuple):
        raise ManifestError(f"secondary is {value!r}; expected names, with commas between them")
    return value


def _class_of(column: str, cell: Any, classes: Sequence[str]) -> str | None:
    name = identity(column, cell, known=classes)
    if name is not None and classes and name not in (*classes, OTHER):
        raise ManifestError(
            f"{column} {name!r}; expected one of {list(classes)}, or {OTHER!r} for none of them"
        )
    return name
