"""Imports between the project's modules, read from their source."""

from __future__ import annotations

import ast
import functools

from tests.support.paths import ROOT

PACKAGES = ("features", "pipeline", "stages")


@functools.cache
def modules() -> dict[str, str]:
    """Path below the project, by dotted name; packages' own `__init__.py` are left out."""
    found = {}
    for package in PACKAGES:
        for path in sorted((ROOT / package).rglob("*.py")):
            if path.name != "__init__.py":
                place = path.relative_to(ROOT).as_posix()
                found[place.removesuffix(".py").replace("/", ".")] = place
    return found


@functools.cache
def imports(module: str) -> frozenset[str]:
    """Modules of the project that a module imports, within functions too."""
    found = set()
    for node in ast.walk(ast.parse((ROOT / modules()[module]).read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.module is not None:
            found |= {node.module, *(f"{node.module}.{name.name}" for name in node.names)}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    return frozenset(found & modules().keys())


def closure(module: str) -> frozenset[str]:
    """A module with all that it imports, directly or not."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        one = waiting.pop()
        if one not in found:
            found.add(one)
            waiting += imports(one)
    return frozenset(found)
