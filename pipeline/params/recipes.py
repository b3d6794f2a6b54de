"""Reads recipes: named experiments with their source and cost, one YAML file each.

A recipe changes settings of params.yaml: `overrides` those of all its experiments, `experiments` (a
list) those of each. Without `experiments` it is one experiment. Beside its settings an item of
`experiments` may have a `name`, for a table with several experiments on one entry of `models`, and
`published` scores. Entries that params.yaml lacks come from the catalogue. `demo`, of the file and
of an item, changes settings further on the demo corpus (`pipeline.params.stand_ins`).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from features.arguments import one_of, quoted, refuse
from features.errors import ParamsError
from features.files.yaml_text import read_yaml_file
from features.settings.entry_names import BACKBONES
from pipeline.params.catalogue.entries import (
    SECTIONS,
    catalogue_entry,
    catalogued,
    expected_entry,
)
from pipeline.params.selection import SLOTS, selected_section

FOLDER = Path("recipes")
WHAT, ABOUT = "what", ("source", "expected", "cost")
OVERRIDES, EXPERIMENTS = "overrides", "experiments"
NAME, PUBLISHED, DEMO = "name", "published", "demo"
OPEN = (*SECTIONS.values(), "e2e")  # sections that need not have a key for each setting
GROUPS = ("train", "e2e", "transcribe")  # other sections that hold settings
_LABEL = re.compile(r"[a-z0-9]+(_[a-z0-9]+)*")

Overrides = Mapping[str, Any]


@dataclass(frozen=True)
class Row:
    """One experiment of a recipe: a row of its table.

    Attributes:
        settings: Settings that it changes, nested as in params.yaml.
        label: What tells it apart; None: its entry of `models` does.
        published: Scores that the source reports, by their names in a report, from 0 to 1.
        demo: Settings that it changes further on the demo corpus.
    """

    settings: Overrides
    label: str | None = None
    published: Mapping[str, float] = field(default_factory=dict)
    demo: Overrides = field(default_factory=dict)


@dataclass(frozen=True)
class Recipe:
    """A recipe.

    Attributes:
        name: Name of its file.
        about: What it is, where the file says so; its source, the expected scores and the cost.
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


def recipe_names(folder: Path = FOLDER, word: str = "") -> list[str]:
    """Names of the recipes that contain a word."""
    return sorted(path.stem for path in folder.glob("*.yaml") if word in path.stem)


def read_recipe(name: str, folder: Path = FOLDER) -> Recipe:
    """Read a recipe.

    Raises:
        ParamsError: If there is no recipe of that name, or its keys are not those of a recipe.
    """
    path = folder / f"{name}.yaml"
    if not path.is_file():
        known = recipe_names(folder)
        expected = one_of(name, known) if known else f"some in {folder.absolute()}, which has none"
        raise ParamsError(f"no recipe {name!r} in {folder}; expected {expected}")
    content = read_yaml_file(path)
    given = set(content) if isinstance(content, dict) else set()
    changes = {OVERRIDES, EXPERIMENTS}
    if not (given >= set(ABOUT) and given & changes and given <= {WHAT, *ABOUT, *changes, DEMO}):
        shown = list(content) if isinstance(content, dict) else content
        raise ParamsError(
            f"{path} holds {quoted(shown)}; expected the keys {list(ABOUT)}, {WHAT} and {DEMO} if "
            f"wanted, and {OVERRIDES}, {EXPERIMENTS} or both"
        )
    common = _mapping(path, OVERRIDES, content.get(OVERRIDES, {}))
    listed = content.get(EXPERIMENTS, [{}])
    if not isinstance(listed, list) or not listed:
        raise ParamsError(f"{path}: {EXPERIMENTS}: given {quoted(listed)}; expected a list of some")
    demo = _mapping(path, DEMO, content.get(DEMO, {}))
    rows = tuple(
        _row(path, f"{EXPERIMENTS}[{number}]", each, common, demo)
        for number, each in enumerate(listed)
    )
    labels = [row.label for row in rows if row.label is not None]
    twice = next((label for label in labels if labels.count(label) > 1), None)
    if twice is not None:
        raise ParamsError(f"{path}: {NAME}: given {quoted(twice)} twice; expected each once")
    about = {key: str(content[key]) for key in (WHAT, *ABOUT) if key in content}
    return Recipe(name, about, rows, several=EXPERIMENTS in given)


def used_entries(experiments: Iterable[Overrides], raw: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Sections and names of the entries that experiments select or change, each once.

    Those of a model's slots come after it, with and without the experiment's own settings of them:
    params.yaml must be right by itself.

    Args:
        experiments: Settings of experiments.
        raw: params.yaml as it was read.
    """
    found: list[tuple[str, str]] = []
    for overrides in experiments:
        selected = {word: raw.get(word) for word in ("fusion", "corpus")} | dict(overrides)
        chosen = [("fusion", selected_section({**raw, **overrides})), ("corpus", "corpora")]
        for word, section in [*chosen, *((each, each) for each in SECTIONS.values())]:
            for name in _names(selected.get(word)):
                found.append((section, name))
                if section == "models":
                    changed = overrides.get(section, {}).get(name, {})
                    entries = (known_entry(raw, section, name), changed)
                    slots = (entry.get(slot) for entry in entries for slot in (*SLOTS, "asr"))
                    found += [(_backbones(raw, x), x) for x in slots if isinstance(x, str)]
    return list(dict.fromkeys(found))


def known_entry(raw: Mapping[str, Any], section: str, name: str) -> Mapping[str, Any]:
    """An entry of params.yaml, or else of the catalogue; empty if neither has it."""
    if name in (raw.get(section) or {}):
        entry = raw[section][name]
    else:
        entry = catalogue_entry(section, name) if name in catalogued(section) else {}
    return entry if isinstance(entry, Mapping) else {}


def lacking_entries(
    experiments: Iterable[Overrides], raw: Mapping[str, Any]
) -> list[tuple[str, str]]:
    """Sections and names of the entries that experiments use and params.yaml lacks.

    Raises:
        ParamsError: If the catalogue lacks one too.
    """
    used = used_entries(experiments, raw)
    lacking = [(section, name) for section, name in used if name not in (raw.get(section) or {})]
    refuse(
        [
            f"{section}: no entry {name!r}; expected "
            f"{expected_entry(section, name, raw.get(section) or {})}"
            for section, name in lacking
            if name not in catalogued(section)
        ]
    )
    return lacking


def with_added(raw: Mapping[str, Any], entries: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """params.yaml, as it was read, with some entries of the catalogue."""
    wanted = dict(raw)
    for section, name in entries:
        wanted[section] = {**(wanted.get(section) or {}), name: catalogue_entry(section, name)}
    return wanted


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


def merged(common: Overrides, own: Overrides) -> Overrides:
    """Settings, nested as in params.yaml, over others.

    >>> merged({"seeds": 1, "train": {"lr": 0.1}}, {"train": {"epochs": 2}})
    {'seeds': 1, 'train': {'lr': 0.1, 'epochs': 2}}
    """
    both = {
        key: merged(common[key], value)
        for key, value in own.items()
        if isinstance(value, Mapping) and isinstance(common.get(key), Mapping)
    }
    return {**common, **own, **both}


def _backbones(raw: Mapping[str, Any], name: str) -> str:
    """The section that has a backbone, or whose part of the catalogue has it."""
    here = [each for each in BACKBONES if name in (raw.get(each) or {})]
    return [*here, *(each for each in BACKBONES if name in catalogued(each)), BACKBONES[0]][0]


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


def _row(path: Path, where: str, given: object, common: Overrides, demo: Overrides) -> Row:
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
    demo = merged(demo, _mapping(path, f"{where}.{DEMO}", own.pop(DEMO, {})))
    whole = merged(common, own)
    for place, changed in ((where, whole), (f"{where}.{DEMO}", demo)):
        _check_sections(path, place, changed)
    return Row(whole, label, published, demo)


def _check_sections(path: Path, where: str, changed: Overrides) -> None:
    """Refuse a section that is no mapping, or an entry that is none."""
    for section in set(changed) & {*SECTIONS.values(), *GROUPS}:
        content = _mapping(path, f"{where}.{section}", changed[section])
        for name, entry in content.items() if section in SECTIONS.values() else ():
            _mapping(path, f"{where}.{section}.{name}", entry)


def _mapping(path: Path, where: str, value: object) -> Overrides:
    if not isinstance(value, dict):
        raise ParamsError(f"{path}: {where}: given {quoted(value)}; expected a mapping")
    return value
