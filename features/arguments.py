"""Keywords from a parameter file against the signature of what they are handed to.

A constructor's signature is its schema: names, types and defaults are read from it, so that the
check cannot drift from the code. Types come from YAML: text, numbers, booleans, null, lists and
mappings. An annotation that is none of these, or cannot be resolved, is not checked.
"""

from __future__ import annotations

import difflib
import inspect
import itertools
import reprlib
import types
import typing
from collections.abc import Collection, Iterable, Mapping, Sequence
from inspect import Parameter
from pathlib import Path
from typing import Any, Literal, Union

_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "text",
    Path: "a path",
    None: "null",
    type(None): "null",
}
_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 80  # characters of a value that a message quotes


def problems(
    target: Any,
    given: Mapping[str, Any],
    where: str,
    *,
    skip: Collection[str] = (),
    also: Collection[str] = (),
) -> list[str]:
    """What is wrong with calling `target(**given)`, one line each; empty if nothing is.

    Args:
        target: Function, class or dataclass whose signature is the schema.
        given: Keywords as read from YAML; an integer will do for a number, a list for a tuple,
            text for a path.
        where: Dotted place of `given` in the file, such as `models.heron.args`.
        skip: Parameters that the caller supplies, which must not be among `given`.
        also: Keys that are valid in the same place but checked elsewhere; named in messages.

    >>> def layer(*, width: int, dropout: float = 0.1): ...
    >>> problems(layer, {"width": 8, "dropout": 0}, "models.mine.args")
    []
    >>> problems(layer, {"width": 8, "dropuot": 0.2}, "args")[0]
    "args.dropuot: given an unknown key; expected one of dropout, width (did you mean 'dropout'?)"
    >>> problems(layer, {"width": True}, "args")
    ['args.width: given True; expected an integer']
    """
    parameters = {p.name: p for p in _keywords(target) if p.name not in skip}
    takes_any = any(p.kind is Parameter.VAR_KEYWORD for p in _signature(target))
    hints = _hints(target)
    found = []
    for key, value in given.items():
        place = f"{where}.{key}" if where else str(key)
        if key in parameters:
            if not _matches(value, hints.get(key, Any)):
                expected = _describe(hints[key])
                found.append(f"{place}: given {quoted(value)}; expected {expected}")
        elif not takes_any or key in skip:
            found.append(f"{place}: {_unknown(str(key), [*parameters, *also])}")
    for name, parameter in parameters.items():
        if parameter.default is Parameter.empty and name not in given:
            place = f"{where}.{name}" if where else name
            found.append(f"{place}: given nothing; expected {_describe(hints.get(name, Any))}")
    return found


def quoted(value: Any) -> str:
    """A value as messages show it: cut to a few dozen characters or entries."""
    return _REPR.repr(value)


def completed(target: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Keywords with the defaults of those left out, so that equal calls are equal however spelled.

    Args:
        target: Function or class.
        given: Keywords without `problems`.

    >>> def layer(*, width: int, dropout: float = 0.1, sizes: tuple[int, ...] = (1, 2)): ...
    >>> completed(layer, {"width": 8, "dropout": 0})
    {'dropout': 0.0, 'sizes': [1, 2], 'width': 8}
    """
    hints = _hints(target)
    defaults = {p.name: p.default for p in _keywords(target) if p.default is not Parameter.empty}
    values = {**defaults, **given}
    return {name: _plain(values[name], hints.get(name, Any)) for name in sorted(values)}


def _plain(value: Any, hint: Any) -> Any:
    """A value as JSON has it, and a number for which a float is expected as a float."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        hint = next((choice for choice in arguments if _matches(value, choice)), Any)
        return value if hint is Any else _plain(value, hint)
    if hint is float and isinstance(value, int):
        return float(value)
    if isinstance(value, float):
        return value + 0.0  # of two zeros one
    if isinstance(value, Mapping):
        of = arguments[1] if len(arguments) > 1 else Any
        return {key: _plain(each, of) for key, each in value.items()}
    if isinstance(value, list | tuple):
        fixed = origin is tuple and Ellipsis not in arguments
        hints = arguments if fixed else arguments[:1] * len(value)
        return [_plain(each, of) for each, of in itertools.zip_longest(value, hints, fillvalue=Any)]
    return str(value) if isinstance(value, Path) else value


def _unknown(key: str, valid: Iterable[str]) -> str:
    names = sorted(set(valid))
    close = difflib.get_close_matches(key, names, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    listed = f"one of {', '.join(names)}" if names else "no keys here"
    return f"given an unknown key; expected {listed}{hint}"


def _signature(target: Any) -> list[Parameter]:
    return list(inspect.signature(target).parameters.values())


def _keywords(target: Any) -> list[Parameter]:
    named = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    return [p for p in _signature(target) if p.kind in named]


def _hints(target: Any) -> dict[str, Any]:
    function = target.__init__ if inspect.isclass(target) else target
    namespace = getattr(inspect.unwrap(function), "__globals__", {})
    hints: dict[str, Any] = {}
    for name, annotation in getattr(function, "__annotations__", {}).items():
        holder = types.SimpleNamespace(__annotations__={name: annotation})
        try:
            hints |= typing.get_type_hints(holder, globalns=namespace)
        except NameError:
            # One name known only to the type checker must not hide the other parameters.
            continue
    return hints


def _matches(value: Any, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return any(_matches(value, choice) for choice in arguments)
    if origin is Literal:
        # 1 == True == 1.0, but they are different things to write in a file.
        return any(value == choice and type(value) is type(choice) for choice in arguments)
    kind = hint if origin is None else origin
    if kind is None or kind is type(None):
        return value is None
    if not inspect.isclass(kind) or kind in (Any, object) or typing.is_typeddict(kind):
        return True
    return _is_a(value, kind, arguments)


def _is_a(value: Any, kind: type, arguments: tuple[Any, ...]) -> bool:
    if kind in (int, float):
        numbers = int if kind is int else (int, float)
        return isinstance(value, numbers) and not isinstance(value, bool)
    if issubclass(kind, Path):
        return isinstance(value, str | Path)
    if kind in (str, bool):
        return isinstance(value, kind)
    if issubclass(kind, Mapping):
        keys, values = arguments or (Any, Any)
        return isinstance(value, Mapping) and all(
            _matches(k, keys) and _matches(v, values) for k, v in value.items()
        )
    if issubclass(kind, Iterable):
        return isinstance(value, list | tuple) and _elements_match(value, kind, arguments)
    return isinstance(value, kind)


def _elements_match(value: Sequence[Any], kind: type, arguments: tuple[Any, ...]) -> bool:
    if kind is tuple and arguments and arguments[-1] is not Ellipsis:
        return len(value) == len(arguments) and all(map(_matches, value, arguments))
    element = arguments[0] if arguments else Any
    return all(_matches(entry, element) for entry in value)


def _describe(hint: Any) -> str:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        return " or ".join(_describe(choice) for choice in arguments)
    if origin is Literal:
        return f"one of {', '.join(repr(choice) for choice in arguments)}"
    kind = hint if origin is None else origin
    if kind in _WORDS:
        return _WORDS[kind]
    if not inspect.isclass(kind) or kind in (Any, object):
        return "a value"
    if issubclass(kind, Mapping):
        return f"a mapping to {_describe(arguments[1])}" if arguments else "a mapping"
    if issubclass(kind, Iterable):
        return _describe_list(kind, arguments)
    return f"a {kind.__name__}"


def _describe_list(kind: type, arguments: tuple[Any, ...]) -> str:
    if not arguments:
        return "a list"
    if kind is tuple and arguments[-1] is not Ellipsis:
        return f"a list of {len(arguments)}: {', '.join(map(_describe, arguments))}"
    return f"a list, each {_describe(arguments[0])}"
