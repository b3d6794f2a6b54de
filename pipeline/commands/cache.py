"""`heronry cache`: list, verify, prune, export and import features (docs/sharing.md)."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import typer
import yaml

from features.arguments import checked, counted, one_of
from features.backbone.base import Reads
from features.errors import ParamsError
from features.exchange.arrays import ArrayReader
from features.exchange.export import Form, export
from features.exchange.importer import Importer, ImportSettings, Parity, prepared
from features.files.reasons import REJECTED
from features.process.terminal import size
from features.ranges import Positive
from features.settings.entry_names import name_problems
from features.settings.locations import store_root
from pipeline.params.file import read_params
from pipeline.storage.inventory import cache_folders, take_inventory
from pipeline.storage.work_store import WORK, removable, remove

PARAMS = Path("params.yaml")
ADVICE_HOP = "frames are {hop:.4g} s apart; give --hop-seconds if they are a grid in time"


def list_caches(*, as_object: bool) -> None:
    """List the caches with size, utterances and the models that need them, and the work store."""
    found = take_inventory(read_params(PARAMS), store_root())
    typer.echo(json.dumps(asdict(found), indent=2) if as_object else "\n".join(found.lines()))


def prune(*, keep_days: float | None, not_in_params: bool, yes: bool) -> None:
    """Remove unused entries of the work store; caches and DVC's files stay."""
    params = read_params(PARAMS)
    found = removable(store_root(), params, keep_days=keep_days, not_in_params=not_in_params)
    for item in found:
        state = "in use, stays" if item.locked else f"used {item.days:.0f} days ago"
        what = item.what if item.what in WORK.values() else f"shards of {item.what}"
        typer.echo(f"{size(item.bytes)} in {item.folder}: {what}, {state}")
    going = [item for item in found if not item.locked]
    total, freed = sum(item.bytes for item in going), sum(item.freed for item in going)
    typer.echo(f"{size(total)} to remove, of which {size(freed)} are nowhere else on this disk")
    if yes:
        for line in remove(going):
            typer.echo(line)
    elif going:
        typer.echo("nothing was removed; say --yes to remove it")


def export_cache(corpus: str, backbone: str, out: Path, *, to: Form) -> None:
    """Write the features of a corpus under a backbone for other programs."""
    # What is in cache/ counts, not what params.yaml names: features outlive their entry.
    pairs = [f"{folder.parent.name} {folder.name}" for folder in cache_folders()]
    asked = f"{corpus} {backbone}"
    if pairs and asked not in pairs:
        raise ParamsError(f"export: given {asked!r}; expected {one_of(asked, pairs)}")
    count = export(corpus, backbone, to, out)
    typer.echo(f"{out}: {count} utterances of {corpus} under {backbone} as {to}")


def import_arrays(
    corpus: str,
    backbone: str,
    source: Path,
    *,
    reads: Reads | None,
    hop_seconds: float | None,
    bins: int | None,
    layers: int,
) -> None:
    """Check arrays made elsewhere against a corpus, write shards, and print their params entry."""
    wrong = name_problems("backbones", backbone)
    if wrong:
        raise ParamsError(wrong[0])
    settings = ImportSettings(
        corpus=corpus,
        source=source.resolve().name,
        reads=reads,
        hop_seconds=checked(hop_seconds, Positive | None, "--hop-seconds"),
        bins=bins,
        layers=layers,
    )
    out = Path("imports", corpus, backbone)
    with ArrayReader() as reader:
        importer = Importer(prepared(corpus), source, reader, settings)
        found = importer.check()
        importer.write(out)
    typer.echo("\n".join([*_parity(found), f"wrote {out}; see {out / REJECTED}"]))
    if found.hop is not None and hop_seconds is None:
        typer.echo(ADVICE_HOP.format(hop=found.hop))
    entry = {
        "kind": "imported",
        "checkpoint": out.as_posix(),
        "revision": found.revision,
        **({} if bins is None else {"bins": bins}),
        **({} if found.dtype == "float16" or bins is not None else {"store_dtype": found.dtype}),
        "version": 1,
    }
    typer.echo("put this below `backbones` in params.yaml:\n")
    typer.echo(yaml.safe_dump({backbone: entry}, sort_keys=False))
    typer.echo(f"then: dvc repro stages/extract/dvc.yaml:extract@{corpus}-{backbone}")


def _parity(found: Parity) -> list[str]:
    lines = [f"{len(found.imported)} utterances have features, in {found.dtype}"]
    if found.rejected:
        lines.append(f"{len(found.rejected)} have none: {counted(found.rejected)}")
        lines += [f"  {id}: {reason}" for id, reason in list(found.rejected.items())[:5]]
    if found.extra:
        lines.append(f"arrays of no utterance, left out: {counted(found.extra)}")
    lines += [f"refused {name}: {reason}" for name, reason in list(found.refused.items())[:20]]
    return lines
