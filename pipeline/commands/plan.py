"""`heronry plan`: what extraction would compute, why, and what it costs, before it runs.

Where the corpus is not prepared, or the weights of a backbone are not on this machine, what it
costs is estimated from published counts and the sizes of networks (`pipeline.costs`).
"""

from __future__ import annotations

from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import typer

from features.backbone.base import content_of
from features.backbone.entry import BackboneEntry, provenance_differences
from features.backbone.memory import Known, Memory
from features.cache.reader import shards_of
from features.corpus.entry import corpus_entry
from features.corpus.manifest import Manifest
from features.corpus.sources import changes_since
from features.errors import CacheError, CheckpointError, ManifestError, ParamsError
from features.extraction.extractor import Extractor, Recipe
from features.extraction.forecast import Forecast, cache_bytes, forecast
from features.extraction.plan import ShardPlan
from features.extraction.sizes import Sizes
from features.extraction.store import WorkStore
from features.process.terminal import size
from features.settings.locations import store_root
from features.transcription.transcripts import as_read
from pipeline.costs.cards import Speed, speed
from pipeline.costs.corpora import CorpusSize, corpus_size
from pipeline.costs.features import Features, hours_text, operations_of
from pipeline.costs.networks import network_of
from pipeline.params.file import Params, read_params
from pipeline.params.siblings import siblings_of
from pipeline.storage.dvc_command import PREPARE

LONGEST = 40  # characters of a setting's value that are shown whole


@dataclass(frozen=True)
class Step:
    """The extraction of one backbone: the amount of work, and the reason for it.

    Attributes:
        backbone: Entry of `backbones`.
        forecast: Amount of work.
        reason: Reason for it.
        operations: Operations of the network; None: it has none, or they are not known.
        dtype: Precision that they are computed in.
        along: Bytes by name of other entries of the network that are computed in the same pass.
        within: Entry in whose pass these features are computed, if it is planned before them.
    """

    backbone: str
    forecast: Forecast
    reason: str
    operations: float | None = None
    dtype: str = "float32"
    along: Mapping[str, int] = field(default_factory=dict)
    within: str | None = None

    def line(self, rate: Speed) -> str:
        """A line for the terminal."""
        work = self.forecast.line()
        if self.within:
            work += f", in the pass of {self.within}"
        elif self.operations:
            work += f", {hours_text(rate.hours(self.operations, self.dtype))}"
        also = [f"{name} (about {size(of)})" for name, of in self.along.items()]
        work += f"; in the same pass: {', '.join(also)}" if also else ""
        return f"{self.backbone}: {work}; {self.reason}"


def plan(backbones: list[str] | None) -> None:
    """Print what extraction would compute for the selected experiment, why, and what it costs."""
    params, rate = read_params(Path("params.yaml")), speed()
    changes = corpus_changes(params)
    if changes:
        typer.echo(
            f"corpus {params.corpus!r} has changed since it was prepared: {'; '.join(changes)}. "
            "`dvc repro` prepares it again, and may then extract more than this:"
        )
    lines = plan_lines(params, store_root(), backbones, rate)
    for line in lines or [nothing(params)]:
        typer.echo(line)
    if any("GPU-hours" in line for line in lines):
        typer.echo(rate.line())


def nothing(params: Params) -> str:
    """Why an experiment needs no features.

    Raises:
        ParamsError: If what is selected is no entry.
    """
    if params.section == "models":
        return "no backbone: every slot is `none`"
    read = params.ensemble if params.section == "ensembles" else params.speech_llm
    read(params.fusion)
    return f"no backbone: {params.section}.{params.fusion} reads no features"


def corpus_changes(params: Params) -> list[str]:
    """Changes of the selected corpus since `prepare` read it; none without a root."""
    if params.corpus not in params.corpora:
        return []
    entry = corpus_entry(params.corpus, params.corpora[params.corpus], params.corpora)
    try:
        return changes_since(entry, Path("data", params.corpus, "labels"))
    except ParamsError:
        return []


def plan_steps(params: Params, store: Path, backbones: list[str] | None = None) -> list[Step]:
    """Extraction that the selected experiment needs; nothing is computed.

    Weights are loaded of backbones that the work store does not know (`features.backbone.memory`).

    Args:
        params: params.yaml.
        store: Root of the work store.
        backbones: Names of entries; None: those of the selected model's slots.

    Raises:
        HeronryError: If the corpus was not prepared, or a checkpoint is missing.
    """
    folder = _utterances(params)
    if not folder.exists():
        raise _not_prepared(params)
    manifest = Manifest.read(folder)
    steps: list[Step] = []
    for name in _names(params, backbones):
        steps.append(_step(params, name, manifest, store, steps))
    return steps


def plan_lines(params: Params, store: Path, backbones: list[str] | None, rate: Speed) -> list[str]:
    """Lines about extraction for a terminal; estimated without the corpus, or without weights.

    Args:
        params: params.yaml.
        store: Root of the work store.
        backbones: Names of entries; None: those of the selected model's slots.
        rate: Speed of a GPU.

    Raises:
        HeronryError: If the corpus was not prepared, and no counts of it are published.
    """
    corpus, names = params.corpus, _names(params, backbones)
    if not _utterances(params).exists():
        size = corpus_size(params, corpus)
        if size is None:
            raise _not_prepared(params)
        estimated = [Features(corpus, params.backbone(name), size).line(rate) for name in names]
        return [f"{size.line(corpus)}; {_prepare(params)}", *estimated]
    manifest, lines = Manifest.read(_utterances(params)), []
    steps: list[Step] = []
    for name in names:
        try:
            steps.append(_step(params, name, manifest, store, steps))
            lines.append(steps[-1].line(rate))
        except CheckpointError as error:
            without = Features(corpus, params.backbone(name), corpus_size(params, corpus))
            lines.append(f"{without.line(rate)}; {str(error).splitlines()[0]}")
    return lines


def _utterances(params: Params) -> Path:
    return Path("data", params.corpus, "utterances")


def _prepare(params: Params) -> str:
    return f"prepare the corpus first: dvc repro {PREPARE.format(corpus=params.corpus)}"


def _not_prepared(params: Params) -> ManifestError:
    return ManifestError(f"{_utterances(params)} does not exist; {_prepare(params)}")


def _names(params: Params, backbones: list[str] | None) -> list[str]:
    return backbones or _selected(params)


def _selected(params: Params) -> list[str]:
    """Backbones of the selected model; none of what is no model."""
    if params.section != "models":
        return []
    model = params.model(params.fusion)
    return sorted({*model.slots.values(), model.asr} - {"none"})


def _step(
    params: Params, name: str, manifest: Manifest, store: Path, before: Sequence[Step]
) -> Step:
    entry = params.backbone(name)
    manifest = as_read(manifest, entry, params.transcripts(params.corpus, name))
    known = _known(entry, store)
    sizes = Sizes.of_known(known)
    planned = ShardPlan.of(manifest, known.reads, sizes)
    expected = forecast(planned, _shards(store, known), sizes)
    reason = _reason(Path("cache", params.corpus, name), manifest, known)
    network, whole = network_of(entry), sum(cut.characters for cut in planned.cuts)
    # Of the texts that are to be computed only the number is known.
    characters = whole * expected.compute / max(1, sum(cut.utterances for cut in planned.cuts))
    todo = CorpusSize(expected.compute, expected.seconds, characters)
    operations = None if network is None else operations_of(entry, network, todo)
    within = next((step.backbone for step in before if name in step.along), None)
    along = {} if within else _along(entry, known, siblings_of(params, name), planned, store)
    return Step(name, expected, reason, operations, entry.compute_dtype, along, within)


def _known(entry: BackboneEntry, store: Path) -> Known:
    """What a backbone says of itself, loaded only if the work store does not remember it."""
    memory = Memory(entry, store)
    known = memory.recall()
    if known is not None:
        return known
    backbone = entry.build()
    return memory.keep(backbone, entry.provenance(backbone))


def _shards(store: Path, known: Known) -> WorkStore:
    return WorkStore(store, known.key)


def _along(
    entry: BackboneEntry,
    known: Known,
    siblings: Sequence[BackboneEntry],
    planned: ShardPlan,
    store: Path,
) -> dict[str, int]:
    """Bytes by name of siblings that extraction seals in the same pass (`--only`: none)."""
    todo = planned.lacking(_shards(store, known))
    if not todo.cuts or entry.kind == "none":
        return {}
    memories = {each.name: Memory(each, store) for each in siblings}
    others = {name: memory.recall() for name, memory in memories.items()}
    if any(other is None or other.weights != known.weights for other in others.values()):
        # Whether they have the same weights, only these say.
        extractor = Extractor(Recipe(entry, store))
        extractor.take_along(siblings, todo)
        others = {
            each.entry.name: memories[each.entry.name].keep(each.backbone, each.provenance)
            for each in extractor.siblings
        }
    found, places = {}, {known.key}
    for each in siblings:
        other = others.get(each.name)
        # As `Extractor.take_along` chooses.
        if other is None or other.grid != known.grid:
            continue
        lacking, sizes = todo.lacking(_shards(store, other)).cuts, Sizes.of_known(other)
        if lacking and other.key not in places and todo.fits(sizes):
            found[each.name] = cache_bytes(lacking, sizes)
        places.add(other.key)
    return found


def _reason(folder: Path, manifest: Manifest, known: Known) -> str:
    # 64-bit hashes take a tenth of the memory of ids and contents.
    had, contents, rejected = array("q"), array("q"), array("q")
    provenance: Mapping[str, Any] = {}
    try:
        for shard in shards_of(folder):
            provenance = shard.provenance
            had.extend(map(hash, shard.named))
            contents.extend(map(hash, shard.contents))
            rejected.extend(hash(shard.prefix + id) for id in shard.rejected)
    except CacheError as error:
        return f"{folder} is not there yet" if not folder.exists() else str(error)
    if len(np.unique(had)) != len(had):
        return f"{folder}: an utterance occurs in two shards; delete it and run `dvc repro`"
    differing = provenance_differences(provenance, known.provenance)
    changed = [f"{key} {_short(a)} -> {_short(b)}" for key, (a, b) in sorted(differing.items())]
    if changed:
        return f"settings differ from those of {folder}: {'; '.join(changed)}"
    wanted, wanted_contents = array("q"), array("q")
    for utterance in manifest:
        if (content := content_of(utterance, known.reads)) is not None:
            wanted.append(hash(utterance.id))
            wanted_contents.append(hash(content))
    both = np.concatenate([had, rejected])
    _, old, now = np.intersect1d(had, wanted, return_indices=True)
    counts = {
        "new": np.count_nonzero(~np.isin(wanted, both)),
        "edited": np.count_nonzero(np.asarray(contents)[old] != np.asarray(wanted_contents)[now]),
        "removed": len(np.setdiff1d(both, wanted)),
    }
    changes = ", ".join(f"{count} {what}" for what, count in counts.items() if count)
    if changes:
        return f"the corpus changed: {changes}"
    same = np.array_equal(np.asarray(wanted)[np.isin(wanted, had)], had)
    as_prepared = f"{folder} is up to date with data/{folder.parent.name}/utterances"
    return as_prepared if same else "the order of the corpus changed"


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= LONGEST else f"{text[:12]}..."
