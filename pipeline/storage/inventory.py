"""Sizes of the caches and the work store, and the models that need each cache."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from features.backbone.memory import FOLDER as NETWORKS
from features.cache.shard import Shard, read_shard
from features.errors import HeronryError
from features.files.reasons import REJECTED, read_reasons
from features.process.terminal import aligned, size
from features.transcription.transcribe import STORE
from pipeline.params.file import Params
from pipeline.runs.answers import STORE as ANSWERS
from pipeline.runtime.resume import NAME, PREDICTIONS
from pipeline.storage.work_store import WORK, stored_backbones, stored_work

HEADER = (
    *("corpus", "backbone", "size", "utterances", "rejected"),
    *("dtype", "width", "layers", "pooling", "needed by"),
)


@dataclass
class CacheFolder:
    """A cache folder; the fields are the keys of `cache list --json`.

    Attributes:
        bytes: Size of its files; their other hard links (DVC's, the store's) cost nothing.
        utterances: Number of utterances with features.
        rejected: Number of utterances in rejected.csv.
        dtype: Type of the values; empty where there are none.
        width: D of a frame.
        layers: Hidden states side by side in a frame.
        bins: Number of values of integer bins, or None.
        needed_by: `model.slot` of each entry of `models` that names the backbone.
        listed: Whether params.yaml has the corpus and the backbone.
        problem: Reason why the folder cannot be read, or empty.
    """

    corpus: str
    backbone: str
    bytes: int = 0
    utterances: int = 0
    rejected: int = 0
    frames: int = 0
    dtype: str = ""
    width: int = 0
    layers: int = 1
    bins: int | None = None
    hop_seconds: float | None = None
    pooling: str = ""
    needed_by: tuple[str, ...] = ()
    listed: bool = True
    problem: str = ""

    def add(self, shard: Shard) -> None:
        """Add the counts of a shard."""
        self.utterances += len(shard.ids)
        self.frames += int(shard.offsets[-1])
        self.dtype, self.pooling = shard.stored.dtype.name, str(shard.provenance.get("pooling", ""))
        spec = shard.spec
        self.width, self.layers, self.bins = spec.dim, spec.layers, spec.bins
        self.hop_seconds = spec.hop_seconds

    def cells(self) -> list[str]:
        """A row of the table."""
        width = str(self.width) if self.bins is None else f"{self.bins} bins"
        needed = ", ".join(self.needed_by) or ("nothing" if self.listed else "not in params.yaml")
        if self.needed_by and not self.dtype:  # the entry `none`, which most models name
            needed = f"{len(self.needed_by)} slots, without features"
        return [
            *(self.corpus, self.backbone, size(self.bytes)),
            *(f"{self.utterances:,}", f"{self.rejected:,}"),
            *((self.dtype, width, str(self.layers)) if self.dtype else ("-", "-", "-")),
            *(self.pooling or "-", f"{needed}; {self.problem}" if self.problem else needed),
        ]


@dataclass(frozen=True)
class Store:
    """Sizes in the work store, in bytes.

    Attributes:
        bytes: Finished shards.
        unused_bytes: Finished shards that no entry of params.yaml would use.
        training_bytes: Half-done trainings.
        prediction_bytes: Half-done predictions.
        transcript_bytes: Recognised words.
        answer_bytes: Answers of speech language models.
        network_bytes: What is known of networks without loading them.
        unused: Kind and checkpoint of each unused backbone, and its size.
    """

    folder: str
    bytes: int
    unused_bytes: int
    training_bytes: int
    prediction_bytes: int
    transcript_bytes: int
    answer_bytes: int
    network_bytes: int
    unused: tuple[tuple[str, int], ...]


@dataclass(frozen=True)
class Inventory:
    """Caches and work store."""

    caches: list[CacheFolder]
    store: Store
    total_bytes: int = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "total_bytes", sum(cache.bytes for cache in self.caches))

    def lines(self) -> list[str]:
        """A table for a terminal."""
        rows = [list(HEADER), *(cache.cells() for cache in self.caches)]
        count, utterances = len(self.caches), sum(cache.utterances for cache in self.caches)
        rows.append(["total", f"{count} caches", size(self.total_bytes), f"{utterances:,}", ""])
        store = self.store
        return [
            *aligned(rows),
            "",
            f"work store {store.folder}: {size(store.bytes)} of shards, {size(store.unused_bytes)} "
            f"of them used by no entry of params.yaml; {size(store.training_bytes)} of half-done "
            f"trainings, {size(store.prediction_bytes)} of half-done predictions, "
            f"{size(store.transcript_bytes)} of transcripts, {size(store.answer_bytes)} of answers"
            f", {size(store.network_bytes)} of what is known of networks",
            *(f"  unused: {what}, {size(count)}" for what, count in store.unused),
        ]


def take_inventory(params: Params, store: Path, root: Path = Path("cache")) -> Inventory:
    """Read every cache folder and the work store; a bad folder does not stop the others.

    Args:
        params: params.yaml.
        store: Root of the work store.
        root: Folder of `<corpus>/<backbone>`.
    """
    needed = users(params)
    found = [_cache_folder(folder, params, needed) for folder in cache_folders(root)]
    return Inventory(found, _store(store, params))


def cache_folders(root: Path = Path("cache")) -> list[Path]:
    """All `<corpus>/<backbone>` below `root`; hidden folders, such as the quarantine, are none."""
    found = (path for path in root.glob("*/*") if path.is_dir())
    return sorted(path for path in found if not path.parent.name.startswith("."))


def users(params: Params) -> dict[str, tuple[str, ...]]:
    """The slots that each backbone fills, as `model.slot`, by backbone."""
    found: dict[str, list[str]] = {}
    for model, entry in params.models.items():
        slots = entry.items() if isinstance(entry, dict) else ()
        for slot, name in slots:
            if slot != "kind" and isinstance(name, str) and name in params.all_backbones:
                found.setdefault(name, []).append(f"{model}.{slot}")
    return {name: tuple(slots) for name, slots in found.items()}


def _cache_folder(folder: Path, params: Params, needed: dict[str, tuple[str, ...]]) -> CacheFolder:
    found = CacheFolder(folder.parent.name, folder.name)
    found.needed_by = needed.get(found.backbone, ())
    found.listed = found.corpus in params.corpora and found.backbone in params.all_backbones
    try:
        found.bytes = sum(path.stat().st_size for path in folder.iterdir())
        if (folder / REJECTED).exists():
            found.rejected = len(read_reasons(folder / REJECTED))
        for path in sorted(folder.glob("*.h5")):
            shard = read_shard(path)  # one at a time: ids of millions are not kept
            found.add(shard)
    except (HeronryError, OSError, KeyError, ValueError) as error:
        found.problem = f"unreadable, see `heronry cache verify {folder}` ({error})"
    return found


def _store(store: Path, params: Params) -> Store:
    backbones = list(stored_backbones(store, params))
    unused = [found for found in backbones if found.entries == ()]
    work = dict.fromkeys(WORK, 0)
    for found in stored_work(store):
        work[found.folder.parent.name] += found.bytes
    return Store(
        folder=str(store),
        bytes=sum(found.bytes for found in backbones),
        unused_bytes=sum(found.bytes for found in unused),
        training_bytes=work[NAME],
        prediction_bytes=work[PREDICTIONS],
        transcript_bytes=work[STORE],
        answer_bytes=work[ANSWERS],
        network_bytes=work[NETWORKS],
        unused=tuple((found.what, found.bytes) for found in unused),
    )
