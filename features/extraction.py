"""The extraction engine: a manifest and a backbone to sealed shards.

Batches are formed inside a shard, longest clips first, so a shard's bytes do not depend on what ran
before. On a CPU a batch is one utterance, which is the fastest there.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray

from features.backbone_entry import BackboneEntry, fingerprint
from features.backbones._backbone import Backbone, Inputs, module_of
from features.cache import CacheWriter, shard_name
from features.errors import UtteranceError
from features.manifest import Manifest, Utterance
from features.progress import progress
from features.records import REJECTED, write_rejected
from features.shard import Row, read_shard
from features.shard_plan import PlannedShard, content_of, plan_shards
from features.store import WorkStore
from features.stream import Stream


@dataclass
class Extraction:
    """What an extraction did.

    Attributes:
        computed: Utterances that went through the backbone.
        copied: Utterances copied from other shards in the work store.
        linked: Shards that were there already.
        seconds: Seconds of audio that went through the backbone.
        rejected: Reasons by id.
    """

    computed: int = 0
    copied: int = 0
    linked: int = 0
    seconds: float = 0.0
    rejected: dict[str, str] = field(default_factory=dict)


class Extractor:
    """Runs one backbone over shards.

    Args:
        entry: The backbone as params.yaml describes it.
        store: Root of the work store.
        device: Where the network runs.
        batch_size: Utterances a batch; None: 1 on a CPU, 16 elsewhere.
    """

    def __init__(
        self, entry: BackboneEntry, *, store: Path, device: str, batch_size: int | None = None
    ) -> None:
        self.entry, self.device = entry, torch.device(device)
        self.backbone: Backbone = entry.build()
        network = module_of(self.backbone)
        if network is not None:
            network.to(self.device)
        self.batch_size = batch_size or (1 if self.device.type == "cpu" else 16)
        provenance = entry.provenance(self.backbone)
        self.store = WorkStore(store, fingerprint(provenance))
        self.writer = CacheWriter(
            spec=self.backbone.spec, provenance=provenance, dtype=entry.stored_as(self.backbone)
        )

    def shard(self, planned: PlannedShard, tell: Extraction) -> Iterator[int]:
        """Finish one shard in the store, yielding once per utterance.

        A shard all of whose utterances were rejected is written empty, so that numbering stays.
        """
        contents = dict(zip(planned.utterances, planned.contents, strict=True))
        rows: dict[str, Row] = {}
        missing: list[Utterance] = []
        for utterance, content in contents.items():
            found = self.store.row(content)
            if found is None:
                missing.append(utterance)
                continue
            rows[utterance.id] = Row(utterance.id, content, found.frames, found.rounding)
            tell.copied += 1
            yield 1
        for batch in self._batches(missing):
            for utterance, frames in self._compute(batch, tell):
                content = contents[utterance]
                rows[utterance.id] = self.writer.round(utterance.id, content, frames)
                tell.computed += 1
                tell.seconds += utterance.seconds or 0.0
            yield from (1 for _ in batch)
        ordered = [rows[u.id] for u in planned.utterances if u.id in rows]
        rejected = {u.id: tell.rejected[u.id] for u in planned.utterances if u.id not in rows}
        self.writer.write(self.store.path(planned.fingerprint), ordered, rejected=rejected)
        self.store.record(planned.fingerprint, device=str(self.device))

    def _batches(self, utterances: Sequence[Utterance]) -> Iterator[list[Utterance]]:
        ordered = sorted(utterances, key=lambda u: (-(u.seconds or len(u.text or "")), u.id))
        for start in range(0, len(ordered), self.batch_size):
            yield ordered[start : start + self.batch_size]

    def _compute(
        self, batch: list[Utterance], tell: Extraction
    ) -> Iterator[tuple[Utterance, NDArray[Any]]]:
        """Frames of each utterance of a batch; those that fail are rejected, the rest go on."""
        while batch:
            try:
                inputs = self.backbone.prepare(batch)
            except UtteranceError as error:
                tell.rejected[error.id] = error.reason
                batch = [utterance for utterance in batch if utterance.id != error.id]
                continue
            stream = self._run(inputs)
            for utterance, values in zip(batch, stream.unpad(), strict=True):
                frames = values.cpu()
                if frames.is_floating_point():
                    frames = frames.float()
                    if not bool(torch.isfinite(frames).all()):
                        tell.rejected[utterance.id] = "its features are not finite"
                        continue
                yield utterance, frames.numpy()
            return

    @torch.inference_mode()
    def _run(self, inputs: Inputs) -> Stream:
        moved = inputs.to(self.device)
        if self.entry.compute_dtype == "float32":
            return self.backbone(moved)
        dtype = getattr(torch, self.entry.compute_dtype)
        with torch.autocast(self.device.type, dtype):
            return self.backbone(moved)


def extract(
    manifest: Manifest,
    entry: BackboneEntry,
    out: Path,
    *,
    store: Path,
    device: str = "cpu",
    batch_size: int | None = None,
) -> Extraction:
    """Fill `out` with the shards of a corpus under a backbone, reusing what the store holds.

    Args:
        manifest: Utterances with absolute audio paths (`Manifest.located`).
        entry: The backbone.
        out: `cache/<corpus>/<backbone>`; replaced.
        store: Root of the work store.
        device: `cpu`, `cuda`, ...
        batch_size: Utterances a batch.

    Raises:
        HeronryError: If nothing can be trusted: a missing file, one that changed since `prepare`, a
            missing checkpoint. Finished shards stay in the store.
    """
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    tell = Extraction()
    if entry.kind == "none":
        # Not quite an empty folder: DVC warns of those at every turn.
        write_rejected(out / REJECTED, {})
        return tell
    extractor = Extractor(entry, store=store, device=device, batch_size=batch_size)
    reads = extractor.backbone.reads
    for utterance in manifest:
        if content_of(utterance, reads) is None:
            tell.rejected[utterance.id] = f"has no {reads}"
    planned = list(plan_shards(manifest, reads))
    total = sum(len(shard.utterances) for shard in planned)
    steps = _steps(extractor, planned, tell)
    for _ in progress(steps, total=total, what=f"extract {entry.name}", unit="utterance"):
        pass
    for shard in planned:
        tell.rejected |= read_shard(extractor.store.path(shard.fingerprint)).rejected
        extractor.store.deliver(shard.fingerprint, out / shard_name(shard.number))
    order = {utterance.id: number for number, utterance in enumerate(manifest)}
    tell.rejected = dict(sorted(tell.rejected.items(), key=lambda item: order[item[0]]))
    write_rejected(out / REJECTED, tell.rejected)
    return tell


def _steps(
    extractor: Extractor, planned: Sequence[PlannedShard], tell: Extraction
) -> Iterator[int]:
    for shard in planned:
        if extractor.store.has(shard.fingerprint):
            tell.linked += 1
            yield from (1 for _ in shard.utterances)
        else:
            yield from extractor.shard(shard, tell)
