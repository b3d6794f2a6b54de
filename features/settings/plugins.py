"""Plug-ins by module name: kind `x` is the module `x` of a folder, which ends in `build = ...`."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Mapping, Sequence
from dataclasses import fields
from typing import Any

from features.arguments import one_of, parameter_types, problems, quoted, takes
from features.errors import ParamsError
from features.settings.entry_names import form_problems


@functools.cache
def kinds(package: str) -> tuple[str, ...]:
    """Names of the plug-ins in a package such as `features.backbones`, sorted.

    A module whose name begins with an underscore is shared code, not a plug-in.

    >>> "ravdess" in kinds("features.corpora")
    True
    """
    paths = importlib.import_module(package).__path__
    return tuple(sorted(m.name for m in pkgutil.iter_modules(paths) if not m.name.startswith("_")))


def load(package: str, kind: str) -> Any:
    """The `build` of plug-in `kind` in `package`.

    Raises:
        ParamsError: If there is no such plug-in, listing those there are.
    """
    found = kinds(package)
    if kind not in found:
        expected = f"{one_of(kind, found)} (files of {package})"
        raise ParamsError(f"unknown kind {quoted(kind)}; expected {expected}")
    return importlib.import_module(f"{package}.{kind}").build


OWN = ("name", "kind", "options")  # fields of a record that are no keywords of the entry


def split_entry(
    record: type, mapping: Mapping[str, Any], build: Any = None, supplied: Sequence[str] = ()
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The keywords of `record`'s fields, and the rest, which is the plug-in's; `kind` is neither.

    Args:
        record: Dataclass of what every entry of the section holds.
        mapping: The entry as read from YAML.
        build: The plug-in. A key that both have is the plug-in's, unless only the record takes the
            value, such as `long: window` beside Whisper's own `long: chunk`.
        supplied: Parameters of the plug-in that no entry gives, so that such a key is the record's.
    """
    shared = {field.name for field in fields(record)} - set(OWN)
    given = set() if build is None else parameter_types(build).keys() - {*supplied}
    own = given & shared & mapping.keys()
    types = parameter_types(record) if own else {}
    shared -= {key for key in own if not takes(types[key], mapping[key])}
    common = {key: value for key, value in mapping.items() if key in shared}
    rest = {key: value for key, value in mapping.items() if key not in shared | {"kind"}}
    return common, rest


def entry_problems(
    record: type, package: str, section: str, name: str, mapping: Any, *, skip: tuple[str, ...] = ()
) -> list[str]:
    """What is wrong with an entry, one line each; empty if nothing is.

    Args:
        record: Dataclass of what every entry of the section holds.
        package: Where its plug-ins are.
        section: Of params.yaml.
        name: The entry's key; also its kind, unless it names one.
        mapping: The entry.
        skip: Parameters of the plug-in that the caller supplies.
    """
    where = f"{section}.{name}"
    found = form_problems(section, name, mapping, f"{{kind: {name}}}")
    if found:
        return found
    kind = mapping.get("kind", name)
    if not isinstance(kind, str):
        return [f"{where}.kind: given {quoted(kind)}; expected text"]
    try:
        build = load(package, kind)
    except ParamsError as error:
        return [f"{where}.kind: {error}"]
    common, options = split_entry(record, mapping, build, skip)
    shared = [field.name for field in fields(record) if field.name not in ("name", "options")]
    found = problems(record, common, where, skip=OWN)
    return found + problems(build, options, where, skip=skip, also=shared)
