"""`heronry run concat --corpus mine --seeds 1`: check an experiment, run it by DVC, print scores.

A front to `dvc exp run`, whose command is printed and gives the same results alone. That command
leaves its settings in params.yaml; here the file is afterwards as it was before.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from features.errors import ParamsError
from features.files.writing import replacing
from pipeline.commands.check import find_problems, listed
from pipeline.commands.show import show
from pipeline.params.file import Params, read_unchecked
from pipeline.params.selection import regime_of, unwritten
from pipeline.storage.dvc_command import obstacles, run_dvc, run_experiment, shown
from pipeline.storage.experiments import free_name, taken_names
from pipeline.storage.set_params import params_with

PARAMS = Path("params.yaml")
TARGET = "evaluate"
LONGEST = 80  # letters of a name that is made here
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.,=+-]*")
_CHANGED = "Run `dvc repro`"


@dataclass(frozen=True)
class Asked:
    """What was asked for; None and an empty tuple stand for what params.yaml has.

    Attributes:
        fusion: Entry of `models`, `ensembles` or `speech_llms`.
        corpus: Entry of `corpora`.
        seeds: Number of seeds.
        settings: Other settings, as `key=value`.
    """

    fusion: str | None = None
    corpus: str | None = None
    seeds: int | None = None
    settings: tuple[str, ...] = ()

    def overrides(self, raw: Mapping[str, Any]) -> list[str]:
        """Arguments of `-S`; a model that is an entry of another regime brings its regime with it.

        Args:
            raw: params.yaml.

        Raises:
            ParamsError: If a setting is given twice, of which Hydra would take the last silently.
        """
        chosen = {"fusion": self.fusion, "corpus": self.corpus, "seeds": self.seeds}
        found = [f"{k}={v}" for k, v in chosen.items() if v is not None] + list(self.settings)
        regime = None if self.fusion is None else regime_of(raw, self.fusion)
        if regime not in (None, raw.get("regime")) and not any(
            each.partition("=")[0] == "regime" for each in found
        ):
            found.append(f"regime={regime}")
        keys: dict[str, str] = {}
        for each in found:
            key = each.partition("=")[0].lstrip("+~")
            if key in keys:
                raise ParamsError(f"{key}: given {keys[key]} and {each}; expected it once")
            keys[key] = each
        return found

    def name(self, params: Params) -> str:
        """Name of the experiment: model, corpus and the settings that were asked for.

        Args:
            params: params.yaml under these settings.
        """
        parts = [params.fusion, params.corpus]
        parts += [] if self.seeds is None else [f"seeds={self.seeds}"]
        for setting in self.settings:
            key, _, value = setting.partition("=")
            key = key.rpartition(".")[2].lstrip("+~")
            parts += [f"{key}={value}"] if key not in ("fusion", "corpus") else []
        # Git refuses a name that ends in a dot or in .lock, and `..` within one.
        text = re.sub(r"[^A-Za-z0-9_.=+-]+", "_", "-".join(parts))[:LONGEST]
        text = re.sub(r"\.{2,}", ".", text).lstrip("-.")
        return re.sub(r"(\.lock|[-.])+$", "", text)


def run(asked: Asked, *, name: str | None = None, queue: bool = False, pull: bool = False) -> None:
    """Check what is asked for, run it as an experiment, and print its scores.

    Args:
        asked: The experiment.
        name: Its name; None: one that says what was asked for.
        queue: Only queue it.
        pull: Download what team mates have pushed, and compute only the rest.

    Raises:
        ParamsError: If anything is wrong with it; all problems are named in one message.
        DvcError: If DVC fails.
    """
    overrides = asked.overrides(vars(read_unchecked(PARAMS)))
    variants = params_with(overrides)
    if len(variants) > 1 and not queue:
        raise ParamsError(
            f"-S: given settings for {len(variants)} experiments; expected one, or --queue too"
        )
    check_all(variants, pull=pull)
    if queue and any(params.section == "ensembles" for params in variants):
        raise ParamsError(
            f"--queue: given the ensemble {variants[0].fusion}, whose members DVC's queue does not "
            "find: it runs in a copy of the repository with the dependencies of stages alone; "
            "expected a run without --queue, which takes seconds"
        )
    chosen = _name(name, asked.name(variants[0]))
    # Without --allow-missing, under which DVC leaves out what it need not compute: reports/ too.
    how = ["--pull"] if pull else []
    words = [*how, "--name", chosen, *(word for each in overrides for word in ("-S", each)), TARGET]
    if queue:
        words = ["exp", "run", "--queue", *words]
        typer.echo(f"> {shown(words)}")
        run_dvc(words)
        typer.echo("params.yaml is as before; `dvc queue start` runs what is queued")
        return
    typer.echo(f"> {shown(['exp', 'run', *words])}")
    with restored(PARAMS):
        run_experiment(words)
    typer.echo(f"experiment {chosen}")
    show()


def check_all(variants: Sequence[Params], *, pull: bool = False) -> list[str]:
    """Print notes; refuse what `check` finds, and what in Git stops an experiment.

    Args:
        variants: params.yaml of each experiment.
        pull: Whether features may come from a remote, so that missing weights are only noted.

    Returns:
        Changes of the corpora since `prepare` ran, a line each.

    Raises:
        ParamsError: If anything is wrong; all problems are named in one message.
    """
    found = obstacles()
    notes: list[str] = []
    changes: list[str] = []
    for params in variants:
        found += unwritten(vars(params))
        found += find_problems(params, note=notes.append, changed=changes.append, pull=pull)
    for line in dict.fromkeys([*notes, *changes]):
        typer.echo(line.replace(_CHANGED, "It is prepared again"))
    if found:
        raise ParamsError(listed(found, "nothing was run"))
    return changes


def _name(given: str | None, made: str) -> str:
    taken = taken_names()
    if given is None:
        return free_name(made, taken)
    if not _NAME.fullmatch(given):
        raise ParamsError(f"--name: given {given!r}; expected letters, digits and _ . , = + -")
    if given in taken:
        raise ParamsError(
            f"--name: given {given!r}, which an experiment has; expected another one, such as "
            f"{free_name(given, taken)}, or first `dvc exp remove {given}`"
        )
    return given


@contextmanager
def restored(path: Path) -> Iterator[None]:
    """Give a file its content back, however the work within ends."""
    before = path.read_bytes()
    try:
        yield
    finally:
        if path.read_bytes() != before:
            with replacing(path) as temporary:
                temporary.write_bytes(before)
            typer.echo(f"{path} is restored: it holds what it held before")
