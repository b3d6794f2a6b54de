"""`heronry add model text`: copy an entry of the catalogue into params.yaml."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer
import yaml

from features.arguments import one_of, refuse
from features.backbone.entry import PACKAGE
from features.errors import ParamsError
from features.files.writing import replacing
from features.files.yaml_text import read_params_file, read_yaml
from features.settings.entry_names import all_name_problems
from features.settings.locations import root_variable
from features.settings.plugins import load
from pipeline.params.catalogue.entries import SECTIONS, catalogue_entry, catalogued, entry_text
from pipeline.params.selection import SLOTS, section_problems

PARAMS = Path("params.yaml")
_NEXT = {
    "corpora": "export {variable}=/path/to/{name}; dvc exp run -S corpus={name}",
    "backbones": "dvc exp run -S models.heron.{slot}={name}",
    "asr_backbones": "dvc exp run -S models.heron.asr={name}",
    "models": "dvc exp run -S fusion={name}",
    "ensembles": "dvc exp run -S regime=ensemble -S fusion={name}",
    "speech_llms": "dvc exp run -S regime=speech_llm -S fusion={name}",
}


def add(what: str | None, name: str | None, *, list_all: bool = False) -> None:
    """Copy an entry of the catalogue into params.yaml, and the backbones that a model needs."""
    raw = read_params_file(PARAMS)
    refuse(section_problems(raw))
    if list_all:
        for line in listing(raw):
            typer.echo(line)
        return
    if what not in SECTIONS:
        given = "nothing" if what is None else repr(what)
        raise ParamsError(f"add: given {given}; expected {one_of(what, SECTIONS)}, or --list")
    section = SECTIONS[what]
    if name not in catalogued(section):
        given = "nothing" if name is None else repr(name)
        others = [f"`heronry add {w} {name}`" for w, s in SECTIONS.items() if name in catalogued(s)]
        expected = " or ".join(others) or one_of(name, catalogued(section))
        raise ParamsError(f"add {what}: given {given}; expected {expected}")
    # Decoded by hand: reading as text would turn each line's own end into \n.
    text, entries = PARAMS.read_bytes().decode(), needed(raw, section, name)
    added = with_entries(text, raw, entries)
    with replacing(PARAMS) as temporary:
        temporary.write_bytes(added.encode())
    for each, entry in entries:
        typer.echo(f"{PARAMS}: added {each}.{entry}")
    slot = _slot(name) if section == "backbones" else ""
    typer.echo(f"next: {_NEXT[section].format(name=name, slot=slot, variable=root_variable(name))}")


def _slot(backbone: str) -> str:
    """A slot that a backbone of the catalogue is meant for."""
    kind = catalogue_entry("backbones", backbone).get("kind", backbone)
    return "text" if load(PACKAGE, kind).reads == "text" else "speech"


def listing(raw: Mapping[str, Any]) -> Iterator[str]:
    """A line for each entry of the catalogue; those in params.yaml have an asterisk."""
    for what, section in SECTIONS.items():
        yield f"{section} (heronry add {what} ENTRY)"
        for name in catalogued(section):
            entry = catalogue_entry(section, name)
            slots = (entry.get(slot, "none") for slot in SLOTS)
            facts = [entry.get("kind", entry.get("method", name)), entry.get("checkpoint", "")]
            facts += [slot for slot in slots if slot != "none"]
            mark = "*" if name in (raw.get(section) or {}) else " "
            yield f"{mark} {name:22}{' '.join(filter(None, facts))}"
    yield "* in params.yaml"


def needed(raw: Mapping[str, Any], section: str, name: str) -> list[tuple[str, str]]:
    """The entry and, of a model, the backbones in its slots that params.yaml lacks.

    Args:
        raw: params.yaml as it was read.
        section: Section of the entry.
        name: Name of the entry.
    """
    found = [(section, name)]
    if section == "models":
        entry = catalogue_entry(section, name)
        slots = dict.fromkeys(entry[slot] for slot in (*SLOTS, "asr"))
        for each in ("backbones", "asr_backbones"):
            names = (slot for slot in slots if slot in catalogued(each))
            found += [(each, slot) for slot in names if slot not in (raw.get(each) or {})]
    return found


def with_entries(text: str, raw: Mapping[str, Any], entries: list[tuple[str, str]]) -> str:
    """params.yaml with entries of the catalogue at the ends of their sections.

    Args:
        text: params.yaml.
        raw: The same as it was read.
        entries: Sections and names.

    Raises:
        ParamsError: If it has one of them, its sections are written in another way than one entry
            after the other, or two names could not stand side by side.
    """
    wanted = dict(raw)
    for section, name in entries:
        present = wanted.get(section) or {}
        if name in present:
            raise ParamsError(
                f"{section}.{name}: {PARAMS} has this entry; edit it, or remove or rename it to "
                "get that of the catalogue"
            )
        wanted[section] = {**present, name: catalogue_entry(section, name)}
        text = _inserted(text, section, entry_text(section, name))
    before, after = map(all_name_problems, (raw, wanted))
    refuse([line for line in after if line not in before])
    # Reading the result is what proves the edit right, however the file is written.
    try:
        right = read_yaml(text) == wanted
    except yaml.YAMLError:
        right = False
    if not right:
        blocks = "".join(f"\n# below {s}:\n{entry_text(s, name)}" for s, name in entries)
        raise ParamsError(
            f"{PARAMS}: cannot add to a section that is not written one entry after the other, "
            f"each with its settings in lines of their own; add this by hand:\n{blocks}"
        )
    return text


def _inserted(text: str, section: str, block: str) -> str:
    """The block, indented as the section's other entries, after the last line of the section."""
    lines = text.splitlines(keepends=True)
    # Of a section without entries the braces go: `asr_backbones: {}`.
    lines = [re.sub(rf"^({section}:[ \t]*)\{{[ \t]*\}}", r"\1", line) for line in lines]
    header = re.compile(rf"{section}:[ \t]*(#.*)?[\r\n]*")
    start = end = next((n for n, line in enumerate(lines, 1) if header.fullmatch(line)), 0)
    if not start:
        return text
    for number, line in enumerate(lines[start:], start + 1):
        if line[0] not in " \t#\r\n":
            break
        # Blank lines and comments that are not indented belong to what follows the section.
        end = number if line[0] in " \t" and line.strip() else end
    indented = (re.match(r"[ \t]+(?=[^\s#])", line) for line in lines[start:end])
    indent = next((match[0] for match in indented if match), "  ")
    newline = "\r\n" if "\r\n" in text else "\n"
    added = [f"{indent}{line}{newline}" for line in block.splitlines()]
    if not lines[end - 1].endswith("\n"):
        lines[end - 1] += newline
    return "".join([*lines[:end], *added, *lines[end:]])
