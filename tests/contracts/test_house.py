"""The layout of the sources: small folders, no families of prefixes, no circles."""

from __future__ import annotations

import itertools
import statistics
from collections import Counter, defaultdict
from pathlib import PurePosixPath

import pytest

from tests.support.imports import imports, modules
from tests.support.paths import ROOT

MOST_MODULES = 20
MOST_LINES = 400  # of a file that gives no reason
FAMILY = 3


def folders() -> dict[str, list[str]]:
    """Names of modules by folder."""
    found = defaultdict(list)
    for place in modules().values():
        path = PurePosixPath(place)
        found[str(path.parent)].append(path.stem)
    return found


def test_no_folder_is_a_shelf() -> None:
    """Those of benchmarks and tests neither."""
    for folder, names in folders().items():
        assert len(names) <= MOST_MODULES, folder
    for root in ("benchmarks", "tests"):
        paths = [path for path in (ROOT / root).rglob("*.py") if path.name != "__init__.py"]
        for place, count in Counter(path.parent for path in paths).items():
            assert count <= MOST_MODULES, place


def test_no_folder_holds_a_family_of_prefixes() -> None:
    """Three modules `x_*` of one folder are a folder `x`."""
    for folder, names in folders().items():
        words = Counter(name.strip("_").split("_")[0] for name in names)
        families = {word: count for word, count in words.items() if count >= FAMILY}
        assert not families, folder


def test_a_long_file_says_why_and_most_are_neither_long_nor_short() -> None:
    lines = {}
    for place in modules().values():
        text = (ROOT / place).read_text(encoding="utf-8")
        lines[place] = text.count("\n")
        if lines[place] > MOST_LINES:
            assert "one file" in text.split('"""')[1], f"{place} has {lines[place]} lines"
    assert 100 <= statistics.median(lines.values()) <= 250


def test_no_imports_in_circles() -> None:
    """Modules are removed as long as one imports none of the others; a circle stays."""
    left = {module: set(imports(module)) for module in modules()}
    while ready := [module for module, names in left.items() if not names]:
        for module in ready:
            del left[module]
        for names in left.values():
            names.difference_update(ready)
    assert not left


@pytest.mark.parametrize("package", ["features", "pipeline"])
def test_no_module_uses_what_is_private_to_another_folder(package: str) -> None:
    """A module with a leading underscore is shared within its folder, or by plug-ins below it."""
    for module, name in itertools.chain.from_iterable(
        ((module, name) for name in imports(module)) for module in modules()
    ):
        if not name.startswith(f"{package}."):
            continue
        *folder, _ = name.split(".")
        private = next((i for i, part in enumerate(name.split(".")) if part.startswith("_")), None)
        if private is not None:
            owner = ".".join(name.split(".")[:private])
            assert module.startswith(f"{owner}."), f"{module} imports {name}"
            assert folder
