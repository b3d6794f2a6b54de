"""Commands that run several stages or experiments: `recipe`, `prompts`, `build`, `transfer`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from features.arguments import one_of, refuse
from features.errors import ParamsError
from features.files.yaml_text import read_params_file
from features.process.interrupts import importing
from pipeline.command_line import completion
from pipeline.params.catalogue.entries import SECTIONS
from pipeline.params.recipes import (
    arguments,
    command_line,
    lacking_entries,
    read_recipe,
    recipe_names,
    with_added,
)
from pipeline.params.selection import section_problems
from pipeline.params.stand_ins import on_demo

_PUSH = "Afterwards push these features, and the prepared corpus, to the default remote."
Corpus = Annotated[
    str | None,
    typer.Option(
        metavar="CORPUS",
        help="Entry of `corpora`. Default: that of params.yaml.",
        autocompletion=completion.corpora,
    ),
]
Pull = Annotated[
    bool,
    typer.Option("--pull", help="Download what team mates have pushed, and compute only the rest."),
]


def recipe(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="RECIPE",
            help="A file of recipes/; with --list a part of its name.",
            autocompletion=completion.recipes,
        ),
    ] = None,
    *,
    list_all: Annotated[
        bool, typer.Option("--list", help="List the recipes, and which can run here.")
    ] = False,
    plan: Annotated[
        bool,
        typer.Option(
            "--plan", help="Only list its experiments, which are finished, and what is missing."
        ),
    ] = False,
    demo: Annotated[
        bool,
        typer.Option(
            "--demo",
            help="On the demo corpus, with backbones that every machine has, for a short time.",
        ),
    ] = False,
    settings: Annotated[
        bool,
        typer.Option(
            "--settings", help="Only print `-S ...` for `dvc exp run`, a line an experiment."
        ),
    ] = False,
) -> None:
    """Run the experiments of a recipe that are not finished, and print the scores of all.

    Entries that params.yaml lacks are added to it from the catalogue; none is overwritten.
    """
    if name is None and not list_all:
        known = one_of(None, recipe_names())
        raise ParamsError(f"recipe: given nothing; expected {known}, or --list")
    if settings and name is not None:
        raw, found = read_params_file(Path("params.yaml")), read_recipe(name)
        refuse(section_problems(raw))
        experiments = (on_demo(found, raw) if demo else found).experiments
        lacking = lacking_entries(experiments, raw)
        words = {section: word for word, section in SECTIONS.items()}
        for section, entry in lacking:
            typer.echo(f"note: first `heronry add {words[section]} {entry}`", err=True)
        for overrides in experiments:
            typer.echo(command_line(arguments(overrides, with_added(raw, lacking))))
        return
    with importing():
        from pipeline.commands.experiments.recipe import list_recipes
        from pipeline.commands.experiments.recipe import recipe as command
    if list_all:
        list_recipes(name or "")
    else:
        command(str(name), plan=plan, demo=demo)


def prompts(
    name: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="Entry of `speech_llms`.",
            autocompletion=completion.speech_llms,
        ),
    ],
    *,
    folder: Annotated[
        Path, typer.Option("--prompts", metavar="DIR", help="Folder of prompts, a file each.")
    ],
    corpus: Corpus = None,
) -> None:
    """Run a speech language model with each prompt of a folder, and print the spread of scores.

    params.yaml is afterwards as it was before. The table is written to reports/prompts/ as well.
    """
    with importing():
        from pipeline.commands.experiments.prompts import prompts as command
    command(name, folder, corpus=corpus)


def build(
    models: Annotated[
        list[str],
        typer.Argument(
            metavar="MODEL", help="Entries of `models`.", autocompletion=completion.models
        ),
    ],
    *,
    corpus: Corpus = None,
    pull: Pull = False,
    push: Annotated[bool, typer.Option("--push", help=_PUSH)] = False,
    dry: Annotated[bool, typer.Option("--dry", help="Only print the DVC targets.")] = False,
) -> None:
    """Extract the features that some models need on a corpus; nothing is trained."""
    with importing():
        from pipeline.commands.experiments.build import build as command
    command(models, corpus=corpus, pull=pull, push=push, dry=dry)


def transfer(
    corpora: Annotated[
        list[str],
        typer.Argument(
            metavar="CORPUS",
            help="Members of a union, an entry of `corpora` of that kind; or that union alone.",
            autocompletion=completion.corpora,
        ),
    ],
    *,
    fusion: Annotated[
        str | None,
        typer.Option(
            metavar="MODEL",
            help="Entry of `models`. Default: `fusion` of params.yaml.",
            autocompletion=completion.models,
        ),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            *("-S", "--set-param"),
            metavar="KEY=VALUE",
            help="Setting of params.yaml for all trainings; may be repeated.",
            autocompletion=completion.setting_keys,
        ),
    ] = None,
) -> None:
    """Train on each corpus and on their union, test all on all from their caches.

    Writes reports/transfer/index.html. A second call computes only what is new.
    """
    with importing():
        from pipeline.commands.experiments.transfer import transfer as command
    command(corpora, fusion=fusion, settings=tuple(settings or ()))
