"""`heronry plan`: what extraction would compute, and why, before it runs."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer

from features.backbone.base import content_of
from features.backbone.entry import provenance_differences
from features.cache.reader import CacheReader
from features.corpus.entry import corpus_entry
from features.corpus.manifest import Manifest
from features.corpus.sources import changes_since
from features.errors import CacheError, ManifestError, ParamsError
from features.extraction.extractor import Extractor, Recipe
from features.extraction.forecast import Forecast, forecast
from features.extraction.plan import ShardPlan
from features.settings.locations import store_root
from features.transcription.transcripts import as_read
from pipeline.params.file import Params, read_params
from pipeline.storage.dvc_command import PREPARE

LONGEST = 40  # characters of a setting's value that are shown whole


@dataclass(frozen=True)
class Step:
    """The extraction of one backbone: the amount of work, and the reason for it."""

    backbone: str
    forecast: Forecast
    reason: str

    def line(self) -> str:
        """A line for the terminal."""
        return f"{self.backbone}: {self.forecast.line()}; {self.reason}"


def plan(backbones: list[str] | None) -> None:
    """Print what extraction would compute for the selected experiment, and why."""
    params = read_params(Path("params.yaml"))
    steps = plan_steps(params, store_root(), backbones)
    changes = corpus_changes(params)
    if changes:
        typer.echo(
            f"corpus {params.corpus!r} has changed since it was prepared: {'; '.join(changes)}. "
            "`dvc repro` prepares it again, and may then extract more than this:"
        )
    for step in steps:
        typer.echo(step.line())
    if not steps:
        typer.echo("no backbone: every slot of the model is `none`")


def corpus_changes(params: Params) -> list[str]:
    """Changes of the selected corpus since `prepare` read it; none without a root."""
    if params.corpus not in params.corpora:
        return []
    entry = corpus_entry(params.corpus, params.corpora[params.corpus])
    try:
        return changes_since(entry, Path("data", params.corpus, "labels"))
    except ParamsError:
        return []


def plan_steps(params: Params, store: Path, backbones: list[str] | None = None) -> list[Step]:
    """Extraction that the selected experiment needs; weights are loaded, but nothing is computed.

    Args:
        params: params.yaml.
        store: Root of the work store.
        backbones: Names of entries; None: those of the selected model's slots.

    Raises:
        HeronryError: If the corpus was not prepared, or a checkpoint is missing.
    """
    folder = Path("data", params.corpus, "utterances")
    if not folder.exists():
        raise ManifestError(
            f"{folder} does not exist; prepare the corpus first: "
            f"dvc repro {PREPARE.format(corpus=params.corpus)}"
        )
    manifest = Manifest.read(folder)
    model = params.model(params.fusion)
    names = backbones or sorted({*model.slots.values(), model.asr} - {"none"})
    return [_step(params, name, manifest, store) for name in names]


def _step(params: Params, name: str, manifest: Manifest, store: Path) -> Step:
    entry = params.backbone(name)
    manifest = as_read(manifest, entry, params.transcripts(params.corpus, name))
    extractor = Extractor(Recipe(entry, store))
    planned = ShardPlan.of(manifest, extractor.backbone.reads)
    expected = forecast(planned, extractor.store, entry, extractor.backbone)
    reason = _reason(Path("cache", params.corpus, name), manifest, extractor)
    return Step(name, expected, reason)


def _reason(folder: Path, manifest: Manifest, extractor: Extractor) -> str:
    try:
        reader = CacheReader(folder)
    except CacheError as error:
        return f"{folder} is not there yet" if not folder.exists() else str(error)
    differing = provenance_differences(reader.provenance, extractor.provenance)
    changed = [f"{key} {_short(a)} -> {_short(b)}" for key, (a, b) in sorted(differing.items())]
    if changed:
        return f"settings differ from those of {folder}: {'; '.join(changed)}"
    reads = extractor.backbone.reads
    wanted = {u.id: c for u in manifest if (c := content_of(u, reads)) is not None}
    had = {id: c for s in reader.shards for id, c in zip(s.ids, s.contents, strict=True)}
    rejected = {id for shard in reader.shards for id in shard.rejected}
    counts = {
        "new": len(wanted.keys() - had.keys() - rejected),
        "edited": sum(had[id] != wanted[id] for id in had.keys() & wanted.keys()),
        "removed": len((had.keys() | rejected) - wanted.keys()),
    }
    changes = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    if changes:
        return f"the corpus changed: {changes}"
    same = [id for id in wanted if id in had] == list(had)
    as_prepared = f"{folder} is up to date with data/{folder.parent.name}/utterances"
    return as_prepared if same else "the order of the corpus changed"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= LONGEST else f"{text[:12]}..."
