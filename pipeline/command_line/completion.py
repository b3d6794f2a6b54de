"""Shell completion of names: entries of params.yaml and of the catalogue, recipes, settings, runs.

Read as plain YAML and JSON, without torch, since a shell waits for the answer. Without a readable
file there is nothing to complete. Bash completes paths itself where nothing here matches.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from features.errors import ParamsError
from features.files.yaml_text import read_params_file
from features.settings.entry_names import BACKBONES
from pipeline.params.catalogue.entries import SECTIONS, catalogued
from pipeline.params.recipes import recipe_names, settings
from pipeline.params.selection import RUNS
from pipeline.storage.experiments import finished

NUMBERS = (Path("reports", "metrics.json"), Path("reports", "details.json"))


def models(incomplete: str) -> list[str]:
    """Entries of `models`."""
    return _entries("models", incomplete)


def speech_llms(incomplete: str) -> list[str]:
    """Entries of `speech_llms`."""
    return _entries("speech_llms", incomplete)


def fusions(incomplete: str) -> list[str]:
    """Entries that `fusion` can select, in any regime."""
    return [name for section in RUNS for name in _entries(section, incomplete)]


def corpora(incomplete: str) -> list[str]:
    """Entries of `corpora`."""
    return _entries("corpora", incomplete)


def backbones(incomplete: str) -> list[str]:
    """Entries of `backbones`, `asr_backbones` and `registry`."""
    return [name for each in BACKBONES for name in _entries(each, incomplete)]


def kinds_of_entry(incomplete: str) -> list[str]:
    """First argument of `add`."""
    return _matching(SECTIONS, incomplete)


def catalogue(ctx: typer.Context, incomplete: str) -> list[str]:
    """Second argument of `add`: entries of the catalogue that params.yaml lacks."""
    section = SECTIONS.get(ctx.params.get("what") or "")
    if section is None:
        return []
    present = _section(section)
    return _matching((name for name in catalogued(section) if name not in present), incomplete)


def recipes(incomplete: str) -> list[str]:
    """Names of recipes."""
    return _matching(recipe_names(), incomplete)


def setting_keys(incomplete: str) -> list[str]:
    """Settings of params.yaml as `train.lr=`."""
    return _matching((f"{key}=" for key, _ in settings(_params())), incomplete)


def metric_names(incomplete: str) -> list[str]:
    """Numbers of reports/metrics.json and details.json."""
    names: dict[str, Any] = {}
    for path in NUMBERS:
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        names |= content if isinstance(content, dict) else {}
    return _matching((k for k, v in names.items() if not isinstance(v, str)), incomplete)


def runs(incomplete: str) -> list[str]:
    """What `compare` takes: `workspace`, DVC's experiments, and run folders."""
    names = ["workspace", *(each.name for each in finished())]
    return _matching(names, incomplete) + run_folders(incomplete)


def run_folders(incomplete: str) -> list[str]:
    """Run folders."""
    return _matching(_folders("runs/*/*/*/run.json"), incomplete)


RunFolder = Annotated[
    Path,
    typer.Argument(
        metavar="RUN",
        help="A run folder, or the folder of one seed and fold in it.",
        autocompletion=run_folders,
    ),
]
"""Argument of commands that use trained models."""

OneSeed = Annotated[
    int | None,
    typer.Option(metavar="K", min=0, help="Only models of this seed. Default: mean of all."),
]
OneFold = Annotated[
    int | None,
    typer.Option(metavar="J", min=0, help="Only models of this fold. Default: mean of all."),
]
"""Options of commands that predict with trained models."""


def caches(incomplete: str) -> list[str]:
    """Folders of features."""
    return _matching(_folders("cache/*/*/*.h5"), incomplete)


def _folders(pattern: str) -> list[str]:
    """Folders, each once, of the files that a pattern matches."""
    return sorted({path.parent.as_posix() for path in Path().glob(pattern)})


def _entries(section: str, incomplete: str) -> list[str]:
    return _matching(_section(section), incomplete)


def _section(section: str) -> Mapping[str, Any]:
    found = _params().get(section)
    return found if isinstance(found, Mapping) else {}


def _params() -> dict[str, Any]:
    try:
        return read_params_file(Path("params.yaml"))
    except ParamsError:
        return {}


def _matching(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
