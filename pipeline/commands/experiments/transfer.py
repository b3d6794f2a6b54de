"""`heronry transfer demo ravdess --fusion concat`: all on all, and the matrix as a page.

DVC trains on each corpus and on their union; models are tested on the others from their caches.

What was trained and extracted before comes from DVC, and predictions that are still those of the
same models and caches from the last page's folder, so that a second call computes what is new.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import typer

from features.corpus.entry import CorpusEntry, corpus_entry
from features.errors import ParamsError
from features.process.terminal import progress
from features.settings.locations import device
from pipeline.commands.run import PARAMS, check_all, restored
from pipeline.params.catalogue.entries import known_entry
from pipeline.params.file import Params
from pipeline.storage.dvc_command import run_stages, shown
from pipeline.storage.set_params import params_with, write_settings
from pipeline.transfer.ground import Ground
from pipeline.transfer.matrix import column
from pipeline.transfer.page import Transfer, as_text, write
from pipeline.transfer.predictions import (
    Row,
    Source,
    kept_rows,
    key_of,
    opened,
    predicted,
    steps,
    write_rows,
)

OUT = Path("reports", "transfer")
CHOSEN = ("fusion", "corpus", "regime")
TRAIN = "stages/train/dvc.yaml:train@{fusion}"


def transfer(
    corpora: Sequence[str], *, fusion: str | None = None, settings: Sequence[str] = ()
) -> None:
    """Train, test and write the page; what is trained on has cached features.

    Args:
        corpora: Entries of `corpora` that some union consists of, or that union alone.
        fusion: Entry of `models`; None: that of params.yaml.
        settings: Other settings, as `key=value`.

    Raises:
        ParamsError: If there is no such union, or anything is wrong with an experiment.
        DvcError: If a stage fails; what was finished is kept.
        HeronryError: If the corpora leak into each other, or a run or cache is wrong.
    """
    given = [each for each in settings if each.partition("=")[0] in CHOSEN]
    if given:
        raise ParamsError(
            f"-S: given {given[0]}; expected other settings: corpora are the arguments, the model "
            "is --fusion, and the regime is cached"
        )
    params, *others = params_with(list(settings))
    if others:
        raise ParamsError(f"-S: given settings for {len(others) + 1} experiments; expected one")
    name, union = fusion or params.fusion, _union(params, corpora)
    names = [*(member.name for member in union.members), union.name]
    asked = {
        each: [f"fusion={name}", f"corpus={each}", "regime=cached", *settings] for each in names
    }
    check_all([params_with(words)[0] for words in asked.values()])
    for each, words in asked.items():
        typer.echo(f"{name} on {each}")
        _train(name, words)
    ground = Ground.read(union)
    runs = {each: Source.read(Path("runs", "cached", each, name)) for each in names}
    rows = _rows(ground, runs)
    columns = [column(ground, tested, rows[each]) for each, tested in ground.corpora.items()]
    found = Transfer(name, ground, columns, len(runs[union.name].run.seeds))
    page = write(found, OUT)
    typer.echo(as_text(found))
    for line in ground.leaks:
        typer.echo(f"  warning: {line}", err=True)
    typer.echo(f"page: {page}")


def _union(params: Params, corpora: Sequence[str]) -> CorpusEntry:
    """The entry of the union of some corpora.

    Raises:
        ParamsError: If there is none, or several.
    """
    for each in corpora:
        known_entry("corpora", params.corpora, each)
    known = [
        corpus_entry(name, mapping, params.corpora)
        for name, mapping in params.corpora.items()
        if isinstance(mapping, Mapping) and mapping.get("kind", name) == "union"
    ]
    wanted = set(corpora)
    found = [u for u in known if wanted in ({u.name}, {member.name for member in u.members})]
    if len(found) == 1:
        return found[0]
    if found:
        raise ParamsError(
            f"{' and '.join(entry.name for entry in found)} are unions of {', '.join(corpora)}; "
            "expected the name of one of them in place of its members"
        )
    if len(wanted) == 1:
        unions = ", ".join(entry.name for entry in known) or "none"
        raise ParamsError(
            f"corpus {corpora[0]!r} is no union; expected two or more corpora, or the name of a "
            f"union: params.yaml has {unions}"
        )
    raise ParamsError(
        f"no entry of `corpora` is a union of {', '.join(corpora)}, which says what their classes "
        f"have in common; write one into {PARAMS}, such as\n"
        f"  all:\n    kind: union\n    of: [{', '.join(corpora)}]\n"
        "    labels: {}   # heronry check names what it needs: docs/transfer.md"
    )


def _train(fusion: str, words: Sequence[str]) -> None:
    """Bring a run up to date by DVC, under some settings of params.yaml."""
    command = ["repro", TRAIN.format(fusion=fusion)]
    typer.echo(f"> {shown(command)}  # with {', '.join(words)}")
    with restored(PARAMS):
        write_settings(words, PARAMS)
        run_stages(command)


def _rows(ground: Ground, runs: Mapping[str, Source]) -> dict[str, dict[str, list[Row]]]:
    """Predictions by tested corpus, then by the corpus that was trained on."""
    where = device()
    found: dict[str, dict[str, list[Row]]] = {name: {} for name in ground.corpora}
    todo = []
    kept = 0
    for target, tested in ground.corpora.items():
        for source, run in runs.items():
            if source == target:
                found[target][source] = run.own_rows()
            elif source == ground.union:
                found[target][source] = run.own_rows(f"{target}/")
            else:
                examples = opened(run, tested)
                key = key_of(run, tested, examples)
                path = OUT / "predictions" / f"{source}_on_{target}.csv"
                held = kept_rows(path, key)
                if held is None:
                    todo.append((source, target, examples, key, path))
                else:
                    kept += 1
                    found[target][source] = held
    typer.echo(f"{len(todo)} pairs of corpora to predict, {kept} predicted before", err=True)

    def done() -> Iterator[None]:
        for source, target, examples, key, path in todo:
            rows: list[Row] = []
            for more in predicted(runs[source], examples, where):
                rows += more
                yield
            write_rows(path, key, rows)
            found[target][source] = rows

    total = sum(steps(runs[source]) for source, *_ in todo)
    for _ in progress(done(), total=total, what="transfer", unit="model"):
        pass
    return found
