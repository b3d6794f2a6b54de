"""Checks keywords of a parameter file or record against the signature of what takes them.

The signature of a constructor is its schema: names, types and defaults are read from it, so that
the check cannot drift from the code. Types are those of YAML: text, numbers, booleans, null, lists
and mappings; ranges of numbers come from `Annotated` (`features.ranges`). Other annotations, and
those that cannot be resolved, are not checked.

It needs no package, since hosts that only extract and train have to check untrusted files too.
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
from typing import Annotated, Any, Literal, TypeVar, Union

from features.errors import ParamsError
from features.ranges import Interval, MinLen, Prefix, in_words, within

Value = TypeVar("Value")
_WORDS: dict[Any, str] = {
    bool: "true or false",
    int: "an integer",
    float: "a number",
    str: "text",
    Path: "a path",
    None: "null",
    type(None): "null",
}


class _Repr(reprlib.Repr):
    def repr_int(self, x: int, level: int) -> str:
        """An integer; Python refuses to convert one of thousands of digits to text."""
        return super().repr_int(x, level) if x.bit_length() < 10_000 else f"<{x.bit_length()} bits>"


_REPR = _Repr()
_REPR.maxstring = _REPR.maxother = 80  # characters of a value in a message
MOST_UNKNOWN = 20  # unknown keys of a mapping that are reported one by one
MOST_LINES, MOST_CHARACTERS = 100, 16_000  # size of a message that lists problems
MOST_NAMES = 100  # names, and characters of the given value, in a search for the nearest name


class Record:
    """Base of dataclasses that JSON files hold as mappings of their fields."""


def problems(
    target: Any,
    given: Mapping[str, Any],
    where: str,
    *,
    skip: Collection[str] = (),
    also: Collection[str] = (),
) -> list[str]:
    """Problems with calling `target(**given)`, one line each.

    Args:
        target: Function, class or dataclass whose signature is the schema.
        given: Keywords as read from YAML; an integer is accepted for a number, a list for a tuple,
            text for a path.
        where: Dotted path of `given` in the file, such as `models.heron.args`.
        skip: Parameters that the caller supplies, which must not be among `given`.
        also: Keys that are valid in the same place but checked elsewhere; listed in messages.

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
    hints = parameter_types(target)
    found, unknown = [], 0
    for key, value in given.items():
        shown = shown_key(str(key))
        place = f"{where}.{shown}" if where else shown
        if key in parameters:
            if not _matches(value, hints.get(key, Any)):
                expected = _describe(hints[key])
                found.append(f"{place}: given {quoted(value)}; expected {expected}")
        elif not takes_any or key in skip:
            unknown += 1
            if unknown <= MOST_UNKNOWN:
                found.append(f"{place}: {_unknown(str(key), [*parameters, *also])}")
    if unknown > MOST_UNKNOWN:
        found.append(f"{where}: given {unknown} unknown keys in all")
    for name, parameter in parameters.items():
        if parameter.default is Parameter.empty and name not in given:
            place = f"{where}.{name}" if where else name
            found.append(f"{place}: given nothing; expected {_describe(hints.get(name, Any))}")
    return found


def checked(value: Value, hint: Any, where: str) -> Value:
    """Check a value against an annotation, such as that of a command's option, and return it.

    Raises:
        ParamsError: If it does not match.
    """
    if not _matches(value, hint):
        raise ParamsError(f"{where}: given {quoted(value)}; expected {_describe(hint)}")
    return value


def takes(hint: Any, value: Any) -> bool:
    """Whether a value matches an annotation.

    >>> takes(Literal["window"], "window"), takes(int | None, "1")
    (True, False)
    """
    return _matches(value, hint)


def quoted(value: Any) -> str:
    """A value as messages show it, cut to a few dozen characters or entries."""
    return _REPR.repr(value)


def completed(target: Any, given: Mapping[str, Any]) -> dict[str, Any]:
    """Complete keywords by defaults and normalise them, so that equal calls are equal mappings.

    Args:
        target: Function or class.
        given: Keywords without `problems`.

    >>> def layer(*, width: int, dropout: float = 0.1, sizes: tuple[int, ...] = (1, 2)): ...
    >>> completed(layer, {"width": 8, "dropout": 0})
    {'dropout': 0.0, 'sizes': [1, 2], 'width': 8}
    """
    hints = parameter_types(target)
    defaults = {p.name: p.default for p in _keywords(target) if p.default is not Parameter.empty}
    values = {**defaults, **given}
    return {name: _plain(values[name], hints.get(name, Any)) for name in sorted(values)}


def _plain(value: Any, hint: Any) -> Any:
    """A value in terms of JSON, with integers converted where the annotation is a float."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _plain(value, arguments[0])
    if origin in (Union, types.UnionType):
        hint = next((choice for choice in arguments if _matches(value, choice)), Any)
        return value if hint is Any else _plain(value, hint)
    if hint is float and isinstance(value, int):
        return float(value)
    if isinstance(value, float):
        return value + 0.0  # -0.0 becomes 0.0
    if isinstance(value, Mapping):
        of = arguments[1] if len(arguments) > 1 else Any
        return {key: _plain(each, of) for key, each in value.items()}
    if isinstance(value, list | tuple):
        fixed = origin is tuple and Ellipsis not in arguments
        hints = arguments if fixed else arguments[:1] * len(value)
        return [_plain(each, of) for each, of in itertools.zip_longest(value, hints, fillvalue=Any)]
    return str(value) if isinstance(value, Path) else value


def one_of(given: Any, names: Collection[str]) -> str:
    """List the names that a message expects, and the one nearest to the given value.

    >>> one_of("heroin", ["heron", "concat"])
    "one of ['concat', 'heron'] (did you mean 'heron'?)"
    """
    listed = sorted(names)
    shown: list[str] = []
    for name in listed:
        if sum(map(len, shown)) + len(name) > MOST_CHARACTERS // 10:
            shown.append("...")
            break
        shown.append(name)
    return f"one of {shown}{_nearest(str(given), listed)}"


def in_lines(found: Sequence[str]) -> str:
    """Join problems to one message of bounded length, a line each."""
    shown = list(found[:MOST_LINES])
    while len(shown) > 1 and sum(map(len, shown)) > MOST_CHARACTERS:
        shown.pop()
    more = len(found) - len(shown)
    return "\n".join([*shown, *([f"and {more} more"] if more else [])])


def refuse(found: Sequence[str]) -> None:
    """Raise a `ParamsError` that lists problems, if there are any."""
    if found:
        raise ParamsError(in_lines(found))


def _nearest(given: str, names: Sequence[str]) -> str:
    if len(given) > MOST_NAMES or len(names) > MOST_NAMES:
        return ""  # the search takes time proportional to the product of both
    close = difflib.get_close_matches(given, names, n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""


def _unknown(key: str, valid: Iterable[str]) -> str:
    names = sorted(set(valid))
    listed = f"one of {', '.join(names)}" if names else "no keys here"
    return f"given an unknown key; expected {listed}{_nearest(key, names)}"


def counted(ids: Iterable[str]) -> str:
    """Number of ids and the first five of them, for a message.

    >>> counted(["a", "b"])
    "2 ('a', 'b')"
    """
    found = list(ids)
    return f"{len(found)} ({', '.join(map(repr, found[:5]))}{', …' if len(found) > 5 else ''})"


def shown_key(key: str) -> str:
    """A key as messages show it: quoted if it is long or has control characters."""
    return key if len(key) <= _REPR.maxstring and key.isprintable() else quoted(key)


def _signature(target: Any) -> list[Parameter]:
    return list(inspect.signature(target).parameters.values())


def _keywords(target: Any) -> list[Parameter]:
    named = (Parameter.POSITIONAL_OR_KEYWORD, Parameter.KEYWORD_ONLY)
    return [p for p in _signature(target) if p.kind in named]


def parameter_types(target: Any) -> dict[str, Any]:
    """Annotations of a function, class or dataclass by parameter, ranges included."""
    function = target.__init__ if inspect.isclass(target) else target
    namespace = getattr(inspect.unwrap(function), "__globals__", {})
    hints: dict[str, Any] = {}
    for name, annotation in getattr(function, "__annotations__", {}).items():
        holder = types.SimpleNamespace(__annotations__={name: annotation})
        try:
            hints |= typing.get_type_hints(holder, globalns=namespace, include_extras=True)
        except NameError:
            # Resolved one by one: a name that only the type checker imports hides no other.
            continue
    return hints


def _matches(value: Any, hint: Any) -> bool:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return _matches(value, arguments[0]) and all(_holds(value, m) for m in arguments[1:])
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
    if issubclass(kind, Record) and isinstance(value, Mapping):
        named = {p.name for p in _keywords(kind)}  # a file may have more keys than are read
        return not problems(kind, {k: v for k, v in value.items() if k in named}, "")
    return _is_a(value, kind, arguments)


def _holds(value: Any, metadata: object) -> bool:
    """Whether a value of the right type meets a constraint of its annotation."""
    if isinstance(metadata, Interval):
        return within(value, metadata)
    if isinstance(metadata, Prefix):
        return bool(value.startswith(metadata.text)) and value != metadata.text
    return not isinstance(metadata, MinLen) or len(value) >= metadata.min_length


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
    if origin is Annotated:
        ranges = [f" {in_words(each)}" for each in arguments[1:] if isinstance(each, Interval)]
        ranges += [", not empty" for each in arguments[1:] if isinstance(each, MinLen)]
        ranges += [
            f" that begins with {each.text!r}" for each in arguments[1:] if isinstance(each, Prefix)
        ]
        return "".join([_describe(arguments[0]), *ranges])
    if origin in (Union, types.UnionType):
        return " or ".join(_describe(choice) for choice in arguments)
    if origin is Literal:
        return f"one of {', '.join(repr(choice) for choice in arguments)}"
    kind = hint if origin is None else origin
    if kind in _WORDS:
        return _WORDS[kind]
    if not inspect.isclass(kind) or kind in (Any, object):
        return "a value"
    if issubclass(kind, Record):
        return f"a mapping of {', '.join(p.name for p in _keywords(kind))}"
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
