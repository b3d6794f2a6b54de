"""`heronry export`: write a run as a folder that loads anywhere, and upload it to a model hub."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import typer

from features.corpus.entry import CorpusEntry, corpus_entry
from features.corpus.labels_folder import CARD, read_card
from features.exchange.licences import check_public, public_licence
from features.files.writing import check_new
from features.process.terminal import size
from pipeline.handover.exporting import export_run
from pipeline.handover.hub import check_repository, push
from pipeline.handover.programs import check_onnx
from pipeline.predict.recorded import own_section
from pipeline.predict.trained import open_run
from pipeline.runs.head import read_head


@dataclass(frozen=True)
class Asked:
    """What the command was asked for.

    Attributes:
        run: Run folder, or that of a seed and fold in it.
        out: New folder.
        seed: Seed of the models; None: all.
        fold: Fold of the models; None: all.
        onnx: Whether to write ONNX programs as well.
        push: Repository to upload the folder to; None: none.
        i_may: Whether the user may pass on what the corpus's licence does not let pass on.
    """

    run: Path
    out: Path
    seed: int | None = None
    fold: int | None = None
    onnx: bool = False
    push: str | None = None
    i_may: bool = False


def export(asked: Asked) -> None:
    """Write a run as a folder, and upload it if that was asked for.

    Raises:
        HeronryError: If the run, the folder, an option or the hub is wrong; or the corpus's licence
            does not let its models be passed on.
    """
    check_new(asked.out)
    if asked.onnx:
        check_onnx()
    run = open_run(asked.run, seed=asked.seed, fold=asked.fold)
    name = str(read_head(run.path)["corpus"])
    labels = Path("data", name, "labels")
    corpus = _corpus(name, labels)
    if asked.push is not None:
        check_repository(asked.push)
        check_public(corpus, f"--push {asked.push}", may=asked.i_may)
    elif public_licence(corpus) is None:
        typer.echo(f"note: the licence of {name} does not let this be passed on to anybody")
    found = export_run(run, asked.out, labels, corpus, onnx=asked.onnx)
    for path, why in found.lacking.items():
        typer.echo(f"note: no {path}: {why}")
    typer.echo(f"{asked.out}: {found.files} files, {size(found.bytes)}")
    if asked.push is not None:
        typer.echo(f"pushed: {push(asked.out, asked.push, f'Export {run.path.as_posix()}')}")


def _corpus(name: str, labels: Path) -> CorpusEntry:
    """Entry of a corpus, by params.yaml, or by its card where params.yaml names it no more."""
    corpora = own_section("corpora")
    if name in corpora:
        return corpus_entry(name, corpora[name], corpora)
    return CorpusEntry(name, str(read_card(labels / CARD).get("kind") or name))
