"""Reads recipes: named experiments with their source and cost, one YAML file each.

A recipe changes settings of params.yaml: `overrides` those of all its experiments, `experiments` (a
list) those of each. Without `experiments` it is one experiment. Beside its settings an item of
`experiments` may have a `name`, for a table with several experiments on one entry of `models`, and
`published` scores.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from features.arguments import one_of, quoted
from features.errors import ParamsError
from features.files.yaml_text import read_yaml_file
from pipeline.params.catalogue.entries import SECTIONS, expected_entry
from pipeline.params.selection import selected_section

FOLDER = Path("recipes")
ABOUT = ("source", "expected", "cost")
OVERRIDES, EXPERIMENTS = "overrides", "experiments"
NAME, PUBLISHED = "name", "published"
OPEN = (*SECTIONS.values(), "e2e")  # sections that need not have a key for each setting
_LABEL = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*")

Overrides = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """One experiment of a recipe: a row of its table.

    Attributes:
        settings: Settings that it changes, nested as in params.yaml.
        label: What tells it apart; None: its entry of `models` does.
        published: Scores that the source reports, by their names in a report, from 0 to 1.
    """

    settings: Overrides
    label: str | None = None
    published: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """A recipe.

    Attributes:
        name: Name of its file.
        about: Its source, the expected scores and the cost.
        rows: Its experiments.
        several: Whether the file lists experiments.
    """

    name: str
    about: Mapping[str, str]
    rows: tuple[Row, ...]
    several: bool

    @property
    def experiments(self) -> tuple[Overrides, ...]:
        """Settings of each experiment."""
        return tuple(row.settings for row in self.rows)

    def experiment_name(self, row: Row, fusion: str) -> str:
        """Name of one of its experiments, which has this entry of `models`."""
        return f"{self.name}-{row.label or fusion}" if self.several else self.name


def read_recipe(name: str, folder: Path = FOLDER) -> Recipe:
    """Read a recipe.

    Raises:
        ParamsError: If there is no recipe of that name, or its keys are not those of a recipe.
    """
    path = folder / f"{name}.yaml"
    if not path.is_file():
        known = [p.stem for p in folder.glob("*.yaml")]
        expected = one_of(name, known) if known else f"some in {folder.absolute()}, which has none"
        raise ParamsError(f"no recipe {name!r} in {folder}; expected {expected}")
    content = read_yaml_file(path)
    given = set(content) if isinstance(content, dict) else set()
    rest = given - set(ABOUT)
    if not given > set(ABOUT) or rest - {OVERRIDES, EXPERIMENTS}:
        shown = list(content) if isinstance(content, dict) else content
        raise ParamsError(
            f"{path} holds {quoted(shown)}; expected the keys {list(ABOUT)} and {OVERRIDES}, "
            f"{EXPERIMENTS} or both"
        )
    common = _mapping(path, OVERRIDES, content.get(OVERRIDES, {}))
    listed = content.get(EXPERIMENTS, [{}])
    if not isinstance(listed, list) or not listed:
        raise ParamsError(f"{path}: {EXPERIMENTS}: given {quoted(listed)}; expected a list of some")
    rows = tuple(_row(path, f"{EXPERIMENTS}[{i}]", common, each) for i, each in enumerate(listed))
    labels = [row.label for row in rows if row.label is not None]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise ParamsError(f"{path}: {NAME}: given {quoted(twice)} twice; expected each once")
    about = {key: str(content[key]) for key in ABOUT}
    return Recipe(name, about, rows, several=EXPERIMENTS in given)


def lacking_entries(experiments: Iterable[Overrides], raw: Mapping[str, Any]) -> list[str]:
    """Entries that experiments select or change and params.yaml lacks, a line each.

    Args:
        experiments: Settings of experiments.
        raw: params.yaml as it was read.
    """
    places = [("corpus", "corpora"), *((s, s) for s in SECTIONS.values())]
    wanted = [
        (section, name)
        for overrides in experiments
        for word, section in (("fusion", selected_section({**raw, **overrides})), *places)
        for name in _names(overrides.get(word))
    ]
    present = {section: raw.get(section) or {} for section, _ in wanted}
    return [
        f"{section}: no entry {name!r}; expected {expected_entry(section, name, present[section])}"
        for section, name in dict.fromkeys(wanted)
        if name not in present[section]
    ]


def settings(overrides: Overrides, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted names and values.

    >>> list(settings({"fusion": "heron", "train": {"lr": 0.1}}))
    [('fusion', 'heron'), ('train.lr', 0.1)]
    """
    for key, value in overrides.items():
        if isinstance(value, Mapping) and value:
            yield from settings(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def arguments(overrides: Overrides, raw: Mapping[str, Any]) -> list[str]:
    """Settings as `dvc exp run -S` takes them: with a `+` where an entry lacks the key.

    Args:
        overrides: Settings.
        raw: params.yaml as it was read.

    >>> arguments({"corpora": {"demo": {"targets": ["votes"]}}}, {"corpora": {"demo": {}}})
    ['+corpora.demo.targets=["votes"]']
    """
    return [
        f"{_sign(name, raw)}{name}="
        + (value if isinstance(value, str) else json.dumps(value, separators=(",", ":")))
        for name, value in settings(overrides)
    ]


def command_line(words: Iterable[str]) -> str:
    """Words for the shell: `-S name=value` for each setting."""
    return " ".join(f"-S {word}" for word in words)


def _names(value: object) -> list[str]:
    """Names of entries: the one that is selected, or those whose settings are changed."""
    return [value] if isinstance(value, str) else list(value) if isinstance(value, Mapping) else []


def _sign(name: str, raw: Mapping[str, Any]) -> str:
    section, *rest = name.split(".")
    place: Any = raw.get(section)
    if section not in OPEN:
        return ""  # DVC refuses a misspelt one
    for key in rest:
        if not isinstance(place, Mapping) or key not in place:
            return "+"
        place = place[key]
    return ""


def _row(path: Path, where: str, common: Overrides, given: object) -> Row:
    own = dict(_mapping(path, where, given))
    label, published = own.pop(NAME, None), own.pop(PUBLISHED, {})
    if label is not None and not (isinstance(label, str) and _LABEL.fullmatch(label)):
        raise ParamsError(
            f"{path}: {where}.{NAME}: given {quoted(label)}; expected lower-case letters, digits "
            "and _"
        )
    for score, value in _mapping(path, f"{where}.{PUBLISHED}", published).items():
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not (number and 0 <= value <= 1):
            raise ParamsError(
                f"{path}: {where}.{PUBLISHED}.{score}: given {quoted(value)}; expected a number "
                "from 0 to 1"
            )
    return Row(_merged(common, own), label, published)


def _mapping(path: Path, where: str, value: object) -> Overrides:
    if not isinstance(value, dict):
        raise ParamsError(f"{path}: {where}: given {quoted(value)}; expected a mapping")
    return value


def _merged(common: Overrides, own: Overrides) -> Overrides:
    """The common settings under those of one experiment.

    >>> _merged({"seeds": 1, "train": {"lr": 0.1}}, {"train": {"epochs": 2}})
    {'seeds': 1, 'train': {'lr': 0.1, 'epochs': 2}}
    """
    both = {
        key: _merged(common[key], value)
        for key, value in own.items()
        if isinstance(value, Mapping) and isinstance(common.get(key), Mapping)
    }
    return {**common, **own, **both}
