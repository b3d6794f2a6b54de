"""Imports features made elsewhere as sealed shards: `heronry cache import`.

Arrays are matched to the utterances of a prepared corpus by their ids, checked one by one, and
written in manifest order into a folder of shards. A backbone of the kind `imported` reads that
folder, so that everything after it is as for any other backbone. All arrays are read twice, since
their common width, dtype and hash are written into every shard.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from features.backbone.base import Reads, content_of
from features.backbones.imported import IMPORTED, content_sha256
from features.cache.reader import CacheReader
from features.cache.shard import shard_name
from features.cache.writer import CacheWriter
from features.corpus.manifest import Manifest
from features.errors import CacheError, ManifestError, ParamsError
from features.exchange.arrays import ArrayReader
from features.exchange.places import Places, find_places
from features.exchange.rows import Array, RowFacts, as_row, differ
from features.extraction.plan import plan_shards
from features.extraction.sizes import Sizes
from features.files.reasons import REJECTED, write_reasons
from features.files.writing import empty_folder, remove_folder
from features.process.terminal import progress
from features.stream import StreamSpec
from features.weights.identity import CONTENT


@dataclass(frozen=True)
class ImportSettings:
    """Facts about the arrays that are not in their files.

    Attributes:
        corpus: Name of the corpus.
        source: Origin of the arrays in words; recorded in the provenance.
        reads: Whether the features were computed from audio or from text; None: from audio if every
            utterance has some.
        hop_seconds: Seconds from one frame to the next; None: no grid in time.
        bins: Number of values of integer bins; None: frames are real-valued.
        layers: Number of hidden states side by side in a frame.
    """

    corpus: str
    source: str
    reads: Reads | None = None
    hop_seconds: float | None = None
    bins: int | None = None
    layers: int = 1


@dataclass
class Parity:
    """Match of the arrays with the corpus.

    Attributes:
        imported: Facts about accepted arrays by id, in manifest order.
        rejected: Reasons by id of utterances without a usable array.
        extra: Arrays of no utterance of the corpus.
        refused: Reasons by file of files that were not read.
        hop: Median seconds of audio a frame; None where unknown.
        dtype: Stored dtype of the shards.
        revision: Identity of the shards' content.
    """

    imported: dict[str, RowFacts] = field(default_factory=dict)
    rejected: dict[str, str] = field(default_factory=dict)
    extra: list[str] = field(default_factory=list)
    refused: dict[str, str] = field(default_factory=dict)
    hop: float | None = None
    dtype: str = "float32"
    revision: str = ""


ABSENT = "has no array"


class Importer:
    """Imports the arrays of a corpus from a folder or file.

    Args:
        manifest: Manifest of the corpus.
        source: Folder or file of arrays.
        reader: Open reader of arrays.
        settings: Facts that are not in the files.

    Raises:
        ParamsError: If there is nothing at `source`.
    """

    def __init__(
        self, manifest: Manifest, source: Path, reader: ArrayReader, settings: ImportSettings
    ) -> None:
        self.manifest, self.reader, self.settings = manifest, reader, settings
        heard = all(utterance.audio is not None for utterance in manifest)
        self.reads: Reads = settings.reads or ("audio" if heard else "text")
        self._ids: dict[str, list[str]] = {}  # by content hash of the audio or text
        known = {utterance.id: utterance for utterance in manifest}
        self.places: Places = find_places(source, known, reader)
        self.parity = Parity(
            extra=self.places.extra,
            # Where the key is an utterance, `check` reports the refusal as its reason.
            refused={k: v for k, v in self.places.refused.items() if k not in known},
        )

    def check(self) -> Parity:
        """Read every array once and decide which are usable; a CacheError if none is."""
        found = self.parity
        steps = progress(self.manifest, total=len(self.manifest), what="check", unit="utterance")
        for utterance in steps:
            content = content_of(utterance, self.reads)
            if content is None:
                found.rejected[utterance.id] = f"has no {self.reads}"
                continue
            try:
                row = self._row(utterance.id)
            except CacheError as error:
                found.rejected[utterance.id] = str(error)
                continue
            found.imported[utterance.id] = RowFacts.of(row)
            self._compare(utterance.id, row, content)
        self._settle_width()
        if not found.imported:
            raise CacheError(self._nothing())
        if self.spec.dim % self.spec.layers:
            raise ParamsError(
                f"--layers {self.spec.layers}: frames {self.spec.dim} wide do not divide into so "
                "many; expected the number of hidden states that stand side by side in a frame"
            )
        # After the widths, which may reject an array that others would share.
        self._name_equals()
        facts = found.imported.values()
        if self.settings.bins is not None:
            found.dtype = "int16"
        else:  # float16 only where it rounds no value
            found.dtype = "float16" if all(fact.half for fact in facts) else "float32"
        found.hop = self._hop()
        return found

    def write(self, out: Path) -> None:
        """Write what `check` accepted into a folder, which is replaced as a whole.

        Raises:
            CacheError: If an array has changed since it was checked.
        """
        found = self.parity
        writer = CacheWriter(spec=self.spec, provenance=self._provenance(), dtype=found.dtype)
        # Written beside `out` and renamed, so that an interrupted import leaves the old folder.
        new = out.with_name(f".{out.name}-new")
        empty_folder(new)
        sizes = Sizes.of(self.spec, self.reads, {"store_dtype": found.dtype})
        for planned in plan_shards(self.manifest, self.reads, sizes):
            rows, rejected = [], {}
            for utterance, content in zip(planned.utterances, planned.contents, strict=True):
                if utterance.id in found.rejected:
                    rejected[utterance.id] = found.rejected[utterance.id]
                    continue
                row = self._row(utterance.id)
                if RowFacts.of(row) != found.imported[utterance.id]:
                    place = self.places.shown(self.places.by_id[utterance.id])
                    raise CacheError(f"{place} changed while it was imported; import again")
                rows.append(writer.round(utterance.id, content, row))
            writer.write(new / shard_name(planned.number), rows, rejected=rejected)
        write_reasons(new / REJECTED, found.rejected)
        found.revision = CONTENT + content_sha256(CacheReader(new))
        remove_folder(out)
        new.rename(out)

    @property
    def spec(self) -> StreamSpec:
        """Width and kind of the rows."""
        width = next(iter(self.parity.imported.values())).width
        settings = self.settings
        return StreamSpec(width, settings.bins, settings.hop_seconds, settings.layers)

    def _row(self, id: str) -> Array:
        place = self.places.by_id.get(id)
        if place is None:
            raise CacheError(self.places.refused.get(id, ABSENT))
        try:
            return as_row(self.reader.read(place.path, place.name), self.settings.bins)
        except CacheError as error:
            raise CacheError(f"{self.places.shown(place)} {error}") from error

    def _compare(self, id: str, row: Array, content: str) -> None:
        """Reject different features of equal audio (or text): the store keeps one row for both."""
        found, ids = self.parity, self._ids.setdefault(content, [])
        ids.append(id)
        first = found.imported.get(ids[0])
        if first is not None and (
            first.sha256 == found.imported[id].sha256 or not differ(self._row(ids[0]), row)
        ):
            return
        for one in ids:
            found.imported.pop(one, None)
            other = ids[1] if one == ids[0] else ids[0]
            found.rejected[one] = (
                f"has the {self.reads} of {other!r} and another array: what follows from more than "
                f"the {self.reads} cannot be told apart in a cache"
            )

    def _name_equals(self) -> None:
        """Name the equal utterance with an array in the reason of one without, which shares it."""
        found = self.parity
        for utterance in self.manifest:
            reason = found.rejected.get(utterance.id, "")
            ids = self._ids.get(content_of(utterance, self.reads) or "", [])
            if reason == ABSENT and ids and ids[0] in found.imported:
                found.rejected[utterance.id] = (
                    f"{ABSENT}; its {self.reads} is that of {ids[0]!r}, whose features it gets"
                )

    def _settle_width(self) -> None:
        found = self.parity
        widths = Counter(fact.width for fact in found.imported.values())
        width = widths.most_common(1)[0][0] if widths else 0
        for id, fact in list(found.imported.items()):
            if fact.width != width:
                del found.imported[id]
                place = self.places.shown(self.places.by_id[id])
                found.rejected[id] = f"{place} is {fact.width} wide; expected {width}"

    def _hop(self) -> float | None:
        if self.reads == "text":
            return None
        seconds = {u.id: u.seconds for u in self.manifest if u.seconds is not None}
        facts = {id: fact for id, fact in self.parity.imported.items() if id in seconds}
        # A single frame may be a pooled vector, which has no hop.
        ratios = [seconds[id] / fact.frames for id, fact in facts.items() if fact.frames > 1]
        return float(np.median(ratios)) if ratios else None

    def _provenance(self) -> dict[str, Any]:
        digest = hashlib.sha256()
        for id, fact in self.parity.imported.items():
            digest.update(f"{id}\0{fact.sha256}\n".encode())
        settings = self.settings
        about = {"corpus": settings.corpus, "reads": self.reads, "source": settings.source}
        return {IMPORTED: {**about, "sha256": digest.hexdigest()}}

    def _nothing(self) -> str:
        found = self.parity
        reasons = [*found.refused.items(), *found.rejected.items()][:5]
        listed = "\n".join(f"  {name}: {reason}" for name, reason in reasons)
        return (
            f"none of the {len(self.manifest)} utterances of corpus {self.settings.corpus!r} has a "
            f"usable array ({len(found.extra)} belong to none, such as {found.extra[:3]}); "
            f"expected files named by the ids of data/{self.settings.corpus}/utterances, or an "
            f"index.csv with the columns id and file:\n{listed}"
        )


def prepared(corpus: str) -> Manifest:
    """The manifest of a prepared corpus; a ManifestError if it is not prepared."""
    folder = Path("data", corpus, "utterances")
    if not folder.exists():
        raise ManifestError(
            f"{folder} does not exist; prepare the corpus first: "
            f"dvc repro stages/prepare/dvc.yaml:prepare@{corpus}"
        )
    return Manifest.read(folder)
