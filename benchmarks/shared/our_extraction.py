"""Our extraction, `features.extraction.extract.extract`, with a backbone that is loaded already."""

from __future__ import annotations

import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from features.backbone.entry import BackboneEntry
from features.corpus.manifest import Manifest
from features.extraction.extract import Options, extract_with
from features.extraction.extractor import Extractor, Recipe
from features.extraction.store import WorkStore


@dataclass(frozen=True)
class Task:
    """What a contender is to do.

    Attributes:
        entry: A backbone whose checkpoint is written.
        manifest: The clips.
        device: Where the network runs.
        folder: Of its own, for what it makes.
    """

    entry: BackboneEntry
    manifest: Manifest
    device: str
    folder: Path


class Ours:
    """`features.extraction.extract.extract` with a backbone that is loaded already."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.extractor = Extractor(Recipe(task.entry, task.folder / "unused"), task.device)
        self.out = task.folder / "out"

    def run(self) -> float:
        """Seconds that it takes to fill `out`, with nothing in the work store."""
        for folder in (self.out, self.task.folder / "store"):
            shutil.rmtree(folder, ignore_errors=True)
        extractor, manifest = self.extractor, self.task.manifest
        name = extractor.store.folder.name
        extractor.own.store = WorkStore(self.task.folder / "store", name)
        start = time.perf_counter()
        self.out.mkdir(parents=True)
        tally = extract_with(extractor, manifest, self.out, Options(devices=(self.task.device,)))
        seconds = time.perf_counter() - start
        if tally.computed != len(manifest):
            raise SystemExit(f"{tally.computed} of {len(manifest)} clips were computed")
        return seconds
