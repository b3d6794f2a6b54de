"""`heronry layers demo hubert_all`: which layer of a network tells the classes of a corpus apart.

It reads sealed caches and labels, and computes linear probes alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import typer

from features.errors import ParamsError
from features.settings.entry_names import name_problems
from pipeline.layers.page import LayersPage
from pipeline.layers.probing import probed
from pipeline.layers.stack import LayerStack

OUT = Path("reports", "layers")


def layers(corpus: str, entries: Sequence[str]) -> None:
    """Probe each layer, print the curve, and write the page.

    Args:
        corpus: Entry of `corpora`, prepared.
        entries: Entries of `backbones`, extracted: one with several layers, or several of one
            network.

    Raises:
        HeronryError: As `LayerStack.open`.
    """
    names = [("corpora", corpus), *(("backbones", entry) for entry in entries)]
    problems = [line for section, name in names for line in name_problems(section, name)]
    if problems:
        raise ParamsError("\n".join(problems))
    if len(set(entries)) < len(entries):
        raise ParamsError(f"layers: given {' '.join(entries)}; expected each entry once")
    stack = LayerStack.open(corpus, entries)
    found = LayersPage(stack, probed(stack))
    page = found.write(OUT / "-".join([corpus, *entries]))
    typer.echo(found.as_text())
    for line in found.warnings:
        typer.echo(f"  warning: {line}", err=True)
    typer.echo(f"page: {page}")
