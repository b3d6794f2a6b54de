"""Checks the names of entries in params.yaml: they become folders, stages and shell words.

DVC puts names unquoted into shell commands and takes `.` for a step down in params.yaml, so that
few characters are allowed. A name that YAML reads as a number or a truth value could not be
selected by `-S corpus=...`, and some pairs of names would share a folder or a stage.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from typing import Any

from features.arguments import quoted
from features.settings.locations import root_variable

BACKBONES = ("backbones", "asr_backbones", "registry")
SECTIONS = ("corpora", *BACKBONES, "models", "ensembles", "speech_llms")
MOST_ENTRIES = 500  # entries of a section
NOTHING = "none"  # the backbone of an empty slot
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,99}")
_NO_TEXT = re.compile(  # numbers in any notation of YAML 1.1 or 1.2, dates, truth values
    r"[0-9_][0-9_-]*|0[xob][0-9a-f_]+|[0-9_]+e[0-9_-]*|true|false|null", re.IGNORECASE
)


def all_name_problems(raw: Mapping[str, Any]) -> list[str]:
    """Faults of the names of all entries, one line each.

    Args:
        raw: params.yaml, of which `SECTIONS` are read; a section may be left out.
    """
    sections = {section: raw.get(section) or {} for section in SECTIONS}
    found = []
    for section, entries in sections.items():
        if len(entries) > MOST_ENTRIES:
            return [f"{section}: given {len(entries)} entries; expected {MOST_ENTRIES} at most"]
        found += [line for name in entries for line in name_problems(section, name)]
        found += _twins(section, entries)
    corpora, nothing = sections["corpora"], sections["backbones"].get(NOTHING, {})
    if not isinstance(nothing, Mapping) or nothing.get("kind", NOTHING) != NOTHING:
        found.append(
            f"backbones.{NOTHING}: given {quoted(nothing)}; expected {{}}: this name stands for an "
            "empty slot"
        )
    found += [line for each in BACKBONES for line in _shared_stages(corpora, sections[each])]
    # All have their features in cache/<corpus>/<name>.
    found += _taken(sections, "asr_backbones", "backbones")
    found += _taken(sections, "registry", "backbones")
    found += _taken(sections, "registry", "asr_backbones")
    # `fusion` selects an entry of one of them, by `regime`; a name says which without it.
    found += _taken(sections, "ensembles", "models")
    found += _taken(sections, "speech_llms", "models")
    found += _taken(sections, "speech_llms", "ensembles")
    return found


def name_problems(section: str, name: str) -> list[str]:
    """Fault of the name of an entry: one line, or none.

    >>> name_problems("models", "a.b")[0]
    "models.a.b: given the name 'a.b'; expected letters (A-Z, a-z), digits, _ and -, not - first"
    """
    if not _NAME.fullmatch(name):
        expected = "letters (A-Z, a-z), digits, _ and -, not - first"
    elif _NO_TEXT.fullmatch(name):
        expected = "a name that YAML does not read as a number, date or truth value"
    elif name.lower() == NOTHING and (section, name) != ("backbones", NOTHING):
        expected = f"another one: `{NOTHING}` is the backbone of an empty slot"
    else:
        return []
    shown = quoted(name)
    return [f"{section}.{shown[1:-1]}: given the name {shown}; expected {expected}"]


def form_problems(section: str, name: str, mapping: Any, example: str) -> list[str]:
    """Fault of the name of an entry, or of an entry that is no mapping: one line, or none.

    >>> form_problems("models", "heron", [], "{kind: heron}")
    ['models.heron: given []; expected a mapping such as {kind: heron}']
    """
    found = name_problems(section, name)
    if found or isinstance(mapping, Mapping):
        return found
    return [f"{section}.{name}: given {quoted(mapping)}; expected a mapping such as {example}"]


def _taken(sections: Mapping[str, Collection[str]], section: str, other: str) -> Iterator[str]:
    """Names of a section that an entry of another section has."""
    taken = {name.lower(): name for name in sections[other]}
    for name in sections[section]:
        if name.lower() in taken:
            yield (
                f"{section}.{name}: `{other}` has the entry {quoted(taken[name.lower()])}; "
                "rename one"
            )


def _twins(section: str, names: Collection[str]) -> Iterator[str]:
    """Names that are the same to file systems, or in the variables of corpus roots."""
    first: dict[str, str] = {}
    for name in names:
        key = root_variable(name) if section == "corpora" else name.lower()
        other = first.setdefault(key, name)
        if other != name:
            what = f"share the variable {key}" if section == "corpora" else "differ in case alone"
            yield f"{section}.{name}: {quoted(other)} and {quoted(name)} {what}; rename one"


def _shared_stages(corpora: Collection[str], backbones: Collection[str]) -> Iterator[str]:
    """Pairs of entries whose extraction DVC would name the same: `<corpus>-<backbone>`."""
    for corpus in corpora:
        for at, character in enumerate(corpus):
            shorter, rest = corpus[:at], corpus[at + 1 :]
            if character != "-" or shorter not in corpora:
                continue
            for backbone in backbones:
                longer = f"{rest}-{backbone}"
                if longer in backbones:
                    yield (
                        f"corpora.{corpus}: {corpus!r} with the backbone {backbone!r} and "
                        f"{shorter!r} with {longer!r} are one stage of DVC, "
                        f"extract@{corpus}-{backbone}; rename one of them"
                    )
