"""Reads recipes: named overrides of params.yaml with their source and cost, one YAML file each."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from features.arguments import quoted
from features.errors import ParamsError
from features.files.yaml_text import read_yaml_file
from pipeline.params.catalogue.entries import SECTIONS, expected_entry

FOLDER = Path("recipes")
KEYS = {"source", "expected", "cost", "overrides"}


def read_recipe(name: str, folder: Path = FOLDER) -> dict[str, Any]:
    """Read the overrides of a recipe.

    Raises:
        ParamsError: If there is no recipe of that name, or its keys are not those of a recipe.
    """
    path = folder / f"{name}.yaml"
    if not path.is_file():
        known = sorted(p.stem for p in folder.glob("*.yaml"))
        raise ParamsError(f"no recipe {name!r} in {folder}; expected one of {known}")
    recipe = read_yaml_file(path)
    if not isinstance(recipe, dict) or set(recipe) != KEYS:
        given = list(recipe) if isinstance(recipe, dict) else recipe
        raise ParamsError(f"{path} holds {quoted(given)}; expected the keys {sorted(KEYS)}")
    overrides = recipe["overrides"]
    if not isinstance(overrides, dict):
        raise ParamsError(f"{path}: overrides: given {quoted(overrides)}; expected a mapping")
    return overrides


def lacking_entries(overrides: Mapping[str, Any], raw: Mapping[str, Any]) -> list[str]:
    """Entries that a recipe sets and params.yaml lacks, a line each: DVC refuses such settings."""
    return [
        f"{section}: no entry {name!r}; expected {expected_entry(section, name, present)}"
        for section in SECTIONS.values()
        for present in [raw[section]]
        for name in overrides.get(section) or ()
        if name not in present
    ]


def settings(overrides: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and values, as `dvc exp run -S` takes them.

    >>> list(settings({"fusion": "heron", "train": {"lr": 0.1}}))
    [('fusion', 'heron'), ('train.lr', 0.1)]
    """
    for key, value in overrides.items():
        if isinstance(value, Mapping) and value:
            yield from settings(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def command_line(overrides: Mapping[str, Any]) -> str:
    """Words for the shell: `-S name=value` for each setting."""
    return " ".join(
        f"-S {name}={value if isinstance(value, str) else json.dumps(value)}"
        for name, value in settings(overrides)
    )
