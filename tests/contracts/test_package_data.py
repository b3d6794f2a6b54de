"""Files other than modules are installed with their package."""

from __future__ import annotations

import tomllib
from pathlib import Path

from tests.support.paths import ROOT

DATA = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"][
    "package-data"
]


def package_of(path: Path) -> Path:
    """Innermost package that holds a file."""
    return next(folder for folder in path.parents if (folder / "__init__.py").exists())


def test_templates_and_catalogues_are_package_data() -> None:
    found = [
        path
        for root in ("features", "pipeline")
        for path in (ROOT / root).rglob("*.*")
        if path.is_file() and path.suffix not in (".py", ".pyc")
    ]
    assert {path.suffix for path in found} >= {".html", ".css"}
    for path in found:
        package = package_of(path)
        name = ".".join(package.relative_to(ROOT).parts)
        patterns = [*DATA.get("*", ()), *DATA.get(name, ())]
        assert any(path in package.glob(pattern) for pattern in patterns), path
