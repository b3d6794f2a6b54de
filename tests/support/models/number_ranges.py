"""Numbers within annotations, for the tests that go through all settings."""

from __future__ import annotations

import types
import typing
from collections.abc import Iterator
from typing import Annotated, Any, Union

from features.arguments import parameter_types
from features.ranges import Interval


def numbers(hint: Any, bounds: tuple[Interval, ...] = ()) -> Iterator[tuple[type, list[Interval]]]:
    """Each number within an annotation, and the ranges around it."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        found = [each for each in arguments[1:] if isinstance(each, Interval)]
        yield from numbers(arguments[0], (*bounds, *found))
    elif origin in (Union, types.UnionType) or origin is not None:
        for argument in arguments if origin is not typing.Literal else ():
            yield from numbers(argument)
    elif hint in (int, float):
        yield hint, list(bounds)


def ends(target: Any) -> Iterator[tuple[str, Any]]:
    """Each numeric setting with its lowest and its highest value (just inside of an open end)."""
    for setting, hint in parameter_types(target).items():
        for _, (bounds, *_) in (found for found in numbers(hint) if found[1]):
            yield setting, 1e-9 if bounds.ge is None else bounds.ge
            yield setting, 1 - 1e-9 if bounds.le is None else bounds.le
