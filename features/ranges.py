"""Ranges of numeric settings, as annotations in the signatures that name the settings.

`features.arguments` checks params.yaml against them. The names are those of the package
annotated-types, which hosts that only extract and train may lack.
The bounds refuse what cannot be meant and what no machine could hold or number represent, not what
would be unwise. NaN and infinity are always refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any


@dataclass(frozen=True)
class Interval:
    """Bounds of a number: above `gt`, from `ge`, below `lt`, at most `le`; None: no such bound."""

    gt: float | None = None
    ge: float | None = None
    lt: float | None = None
    le: float | None = None

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        """For pydantic, where it is there: the type's JSON schema with these bounds."""
        bounds = {
            "exclusiveMinimum": self.gt,
            "minimum": self.ge,
            "exclusiveMaximum": self.lt,
            "maximum": self.le,
        }
        return {**handler(schema), **{key: x for key, x in bounds.items() if x is not None}}


@dataclass(frozen=True)
class MinLen:
    """Smallest number of elements of a text, list or mapping."""

    min_length: int

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        """For pydantic, where it is there: the type's JSON schema with this length."""
        plain: dict[str, Any] = handler(schema)
        return {**plain, "minItems" if plain["type"] == "array" else "minLength": self.min_length}


@dataclass(frozen=True)
class Prefix:
    """Beginning of a text, which must go on after it."""

    text: str

    def __get_pydantic_json_schema__(self, schema: Any, handler: Any) -> dict[str, Any]:
        """For pydantic, where it is there: the type's JSON schema with this beginning."""
        return {**handler(schema), "pattern": f"^{self.text}."}


Count = Annotated[int, Interval(ge=1, le=1_000_000)]  # epochs, utterances of a batch, shards
Amount = Annotated[int, Interval(ge=0, le=1_000_000_000)]  # a count that may be 0
Width = Annotated[int, Interval(ge=1, le=16_384)]  # features of a layer
Heads = Annotated[int, Interval(ge=1, le=1024)]  # heads of an attention
Multiple = Annotated[int, Interval(ge=1, le=64)]  # factor of a width
Seed = Annotated[int, Interval(ge=0, le=10**18)]
Positive = Annotated[float, Interval(gt=0, le=1_000_000_000)]
NotNegative = Annotated[float, Interval(ge=0, le=1_000_000_000)]
Rate = Annotated[
    float, Interval(ge=0, le=1000)
]  # learning rate, decay, weight or exponent of a loss
Share = Annotated[float, Interval(ge=0, lt=1)]  # a share that must leave something, as dropout
Probability = Annotated[float, Interval(ge=0, le=1)]


def within(value: float, interval: Interval) -> bool:
    """Whether a number lies in a range.

    >>> within(0, Interval(ge=0, lt=1)), within(1, Interval(ge=0, lt=1))
    (True, False)
    >>> within(float("nan"), Interval(ge=0))
    False
    """
    bounds = [
        interval.gt is None or value > interval.gt,
        interval.ge is None or value >= interval.ge,
        interval.lt is None or value < interval.lt,
        interval.le is None or value <= interval.le,
    ]
    return all(bounds)


def in_words(interval: Interval) -> str:
    """A range in words, for messages.

    >>> in_words(Interval(ge=1, le=8)), in_words(Interval(gt=0, le=9))
    ('from 1 to 8', 'above 0, at most 9')
    >>> in_words(Interval(ge=0, lt=1))
    'from 0 to below 1'
    """
    low = f"from {interval.ge} to" if interval.gt is None else f"above {interval.gt},"
    if interval.lt is not None:
        return f"{low} below {interval.lt}"
    return f"{low} {interval.le}" if interval.gt is None else f"{low} at most {interval.le}"
