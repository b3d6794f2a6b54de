"""Catalogue of the corpora, backbones and models that heronry knows, one YAML file an entry.

params.yaml holds the entries that a project uses; `heronry add` copies others into it.
A file `models/text.yaml` holds the key `text` with its settings, as it stands below `models`.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from features.arguments import MOST_NAMES, one_of, quoted
from features.errors import ParamsError
from features.files.yaml_text import read_yaml

FOLDER = Path(__file__).parent
SECTIONS = {  # by the word of `add`
    "corpus": "corpora",
    "backbone": "backbones",
    "asr_backbone": "asr_backbones",
    "model": "models",
    "ensemble": "ensembles",
    "speech_llm": "speech_llms",
}


def catalogued(section: str) -> list[str]:
    """Names of the entries that the catalogue has for a section of params.yaml."""
    return sorted(path.stem for path in (FOLDER / section).glob("*.yaml"))


def entry_text(section: str, name: str) -> str:
    """An entry as YAML with its comments, its key at the beginning of the first line."""
    return (FOLDER / section / f"{name}.yaml").read_text(encoding="utf-8")


def catalogue_entry(section: str, name: str) -> Any:
    """The settings of an entry."""
    return read_yaml(entry_text(section, name))[name]


def with_catalogue(raw: Mapping[str, Any]) -> dict[str, Any]:
    """params.yaml, as it was read, with every entry of the catalogue that it lacks."""
    known = {
        section: {name: catalogue_entry(section, name) for name in catalogued(section)}
        for section in SECTIONS.values()
    }
    written = {section: raw.get(section) or {} for section in known}
    return {**raw, **{name: {**entries, **written[name]} for name, entries in known.items()}}


def known_entry(section: str, entries: Mapping[str, Any], name: str) -> Any:
    """The entry of a section of params.yaml by its name.

    Raises:
        ParamsError: If there is none; it names those that there are.
    """
    if name not in entries:
        expected = expected_entry(section, name, entries)
        raise ParamsError(f"{section}: no entry {quoted(name)}; expected {expected}")
    return entries[name]


def expected_entry(section: str, given: object, present: Collection[str]) -> str:
    """Expected names in a message about a name that params.yaml has no entry for.

    Args:
        section: Section of params.yaml; `backbones` stands for `asr_backbones` too.
        given: Name, or whatever stands in place of one.
        present: Names of the entries that params.yaml has.

    >>> expected_entry("models", "text", ["heron"])
    "one of ['heron'], or `heronry add model text`, which the catalogue has"
    """
    expected = one_of(given, present)
    sections = (section, "asr_backbones") if section == "backbones" else (section,)
    known = {
        name: word
        for word, plural in SECTIONS.items()
        if plural in sections
        for name in catalogued(plural)
        if name not in present
    }
    near = [given] if isinstance(given, str) and given in known else []
    # `expected` ends in ] where it suggests no name of params.yaml itself.
    if not near and isinstance(given, str) and len(given) <= MOST_NAMES and expected[-1] == "]":
        near = difflib.get_close_matches(given, known, n=1)
    if near:
        expected += f", or `heronry add {known[near[0]]} {near[0]}`, which the catalogue has"
    return expected
