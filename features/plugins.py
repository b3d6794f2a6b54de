"""Plug-ins by module name: kind `x` is the module `x` of a folder, which ends in `build = ...`."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from typing import Any

from features.arguments import one_of, quoted
from features.errors import ParamsError


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
