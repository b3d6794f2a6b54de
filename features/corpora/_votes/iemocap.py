"""Raters' lines of IEMOCAP, below the header of each utterance in its label files.

    C-E2:   Neutral;        (curious)           category, or several: `Neutral; Anger;`
    A-E3:   val 3; act 2; dom  2;   ()          attributes, found by name

`E` are external raters, `F` and `M` the speakers' own views. The header's three numbers are the
means of the external raters alone. Comments in brackets may be any text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

from features.corpus.ratings import Rating
from features.errors import ManifestError

ATTRIBUTES = {"arousal": "act", "valence": "val", "dominance": "dom"}
SCALE = (1.0, 5.0)
CATEGORIES = {
    "anger": "ang",
    "disgust": "dis",
    "excited": "exc",
    "fear": "fea",
    "frustration": "fru",
    "happiness": "hap",
    "neutral": "neu",
    "neutral state": "neu",
    "other": "oth",
    "sadness": "sad",
    "surprise": "sur",
}
_LINE = re.compile(r"([CA])-([EFM]\d+)\s*:\s*(.*)", re.ASCII)
_PART = re.compile(r"\s*(val|act|dom)\s*([0-9.]*)\s*", re.ASCII)


@dataclass
class Block:
    """Raters' lines of one utterance.

    Attributes:
        ratings: By rater, categories and attributes together.
        faults: Number of each line that cannot be read, and the reason.
    """

    ratings: dict[str, Rating] = field(default_factory=dict)
    faults: list[tuple[int, str]] = field(default_factory=list)


def read_block(
    id: str, session: str, lines: Iterable[tuple[int, str]], names: Mapping[str, str]
) -> Block:
    """Read the raters' lines of an utterance.

    Args:
        id: The utterance.
        session: Session, such as `Ses01`: the speakers' own views are unique within it.
        lines: Number and text of each line.
        names: The corpus's codes, such as `neu`, to the names of ratings.
    """
    block, seen = Block(), set()
    for number, line in lines:
        match = _LINE.fullmatch(line)
        try:
            if match is None:
                raise ManifestError("it is not C-<rater>: categories, or A-<rater>: attributes")
            kind, rater, said = match.groups()
            if (kind, rater) in seen:
                raise ManifestError(f"{kind}-{rater} occurs twice for this utterance")
            seen.add((kind, rater))
            own = not rater.startswith("E")
            unique = f"{session}_{rater}" if own else rater
            held = block.ratings.get(rater) or Rating(id, unique, own)
            if kind == "C":
                named = _categories(said, names)
                label, more = (named[0], tuple(named[1:]) or None) if named else (None, None)
                held = replace(held, label=label, secondary=more)
            else:
                held = replace(held, values=_values(said))
            block.ratings[rater] = held
        except ManifestError as error:
            block.faults.append((number, f"{line!r}: {error}"))
    return block


def header_values(numbers: str) -> dict[str, float] | None:
    """Attributes of a header `2.5000, 2.5000, 2.5000`: valence, activation and dominance.

    Raises:
        ManifestError: If these are not three numbers on the scale.
    """
    cells = [cell.strip() for cell in numbers.split(",")]
    if len(cells) != len(ATTRIBUTES):
        raise ManifestError(f"[{numbers}]; expected three numbers: valence, activation, dominance")
    by_sign = dict(zip(("val", "act", "dom"), cells, strict=True))
    return _scaled(by_sign)


def _categories(said: str, names: Mapping[str, str]) -> list[str]:
    """Names of what a rater said, before the comment in brackets."""
    found = []
    for part in _before_comment(said).split(";"):
        category = " ".join(part.lower().split())
        if not category:
            continue
        if category not in CATEGORIES:
            raise ManifestError(f"{part.strip()!r}; expected one of {', '.join(CATEGORIES)}")
        found.append(names[CATEGORIES[category]])
    return list(dict.fromkeys(found))


def _values(said: str) -> dict[str, float] | None:
    parts = [_PART.fullmatch(part) for part in _before_comment(said).strip().rstrip(";").split(";")]
    by_sign = {match[1]: match[2] for match in parts if match}
    if None in parts or len(by_sign) != len(ATTRIBUTES) or len(parts) != len(ATTRIBUTES):
        raise ManifestError("expected `val 3; act 2; dom 2;`")
    return _scaled(by_sign)


def _before_comment(said: str) -> str:
    """What is before the tab or the bracket: a comment may hold both and whatever else."""
    return re.split(r"[\t(]", said, maxsplit=1)[0]


def _scaled(by_sign: Mapping[str, str]) -> dict[str, float] | None:
    """Numbers by attribute, without the empty ones."""
    found: dict[str, float] = {}
    low, high = SCALE
    for name, sign in ATTRIBUTES.items():
        text = by_sign[sign]
        if not text:
            continue
        try:
            value = float(text)
        except ValueError:
            value = float("nan")
        if not low <= value <= high:
            raise ManifestError(f"{sign} {text}; expected a number from {low:g} to {high:g}")
        found[name] = int(value) if value.is_integer() else value
    return found or None
