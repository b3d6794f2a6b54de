"""Imported features, which are read instead of computed: arrays, or a cache of another project.

`checkpoint` names a folder of sealed shards (docs/format.md) by its path, or by its name below
HERONRY_CHECKPOINTS:

- what `heronry cache import` wrote of arrays of any origin. Extraction copies its rows like all
  features, through the work store into the shards of the corpus. Their licence is unknown to
  heronry.
- a cache folder that another project extracted, as `dvc import` brings it. It is used as it is: its
  shards keep their provenance, whose fingerprints, licences and leaks are those of the backbone
  that computed them, and where the corpus is divided alike, they are the same files.

Neither can be tuned. Features belong to the audio (or text) of an utterance at the time they were
made: if that has changed since, the utterance is rejected. Utterances of equal audio (or text) have
equal features, so that ids need not be those of the other project.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from features.backbone.base import BackboneFactory, Inputs, Reads, content_of
from features.backbone.entry import PACKAGE, in_registry
from features.cache.reader import CacheReader
from features.cache.shard import ADVICE, settings_of, shard_name
from features.corpus.utterance import Utterance
from features.errors import (
    CacheError,
    CheckpointError,
    DamagedShardError,
    HeronryError,
    ParamsError,
    UtteranceError,
)
from features.ranges import Interval
from features.settings.plugins import kinds, load
from features.stream import Stream
from features.weights.checkpoint import Checkpoint
from features.weights.identity import CONTENT

IMPORTED = "imported"  # key of provenance: origin of the arrays
_FILES = (shard_name(0),)


class Imported:
    """Rows of sealed shards.

    Args:
        checkpoint: Folder of the shards.
        revision: `sha256:` and the hash of their content, as the import printed it; None: not
            compared.
        bins: Number of values of an integer bin; None where frames are real-valued, or for a cache
            of another project, which says it itself.
        reads: What the features of a cache of another project were computed from, if this project
            does not have its kind of backbone.

    Attributes:
        recorded: Provenance of a cache of another project, which its features keep; None of arrays.
        origin: Identity of its content, which keeps its shards in the work store apart from those
            that are extracted here.
    """

    reads: Reads = "nothing"  # of the class: no audio is needed; an instance has its own value
    files = _FILES
    added: ClassVar[Mapping[str, object]] = {"reads": None}

    def __init__(
        self,
        *,
        checkpoint: str,
        revision: str | None = None,
        bins: Annotated[int, Interval(ge=1, le=32_767)] | None = None,
        reads: Literal["audio", "text"] | None = None,
    ) -> None:
        self.reader = _opened(checkpoint)
        self.spec, self.trainable = self.reader.spec, False
        provenance = settings_of(self.reader.provenance)
        self.recorded = provenance if _is_cache(provenance) else None
        if self.recorded is not None:
            _check_dtype(self.reader)
        self.reads = _modality(self.reader.folder, provenance, reads)
        self.source = provenance.get(IMPORTED) or {"reads": self.reads}
        self.revision = CONTENT + content_sha256(self.reader)
        self.origin = None if self.recorded is None else self.revision
        if revision is not None and revision != self.revision:
            raise CheckpointError(
                f"imported features {checkpoint!r} have revision {self.revision}; expected "
                f"{revision}: correct `revision` in params.yaml, or import the others again"
            )
        if bins != self.spec.bins and (bins is not None or self.recorded is None):
            raise ParamsError(
                f"imported features {checkpoint!r}: given bins {bins}; they have {self.spec.bins}: "
                "correct `bins` in params.yaml"
            )
        self.ids: dict[str, str] = {}  # by content hash; of equal contents the first
        for shard in self.reader.shards:
            for id, content in zip(shard.named, shard.contents, strict=True):
                self.ids.setdefault(content, id)
        self.rejected = self.reader.rejected

    @staticmethod
    def cache_of(options: Mapping[str, Any]) -> CacheReader | None:
        """The cache of another project that options name, unverified.

        None if it is not here, or not readable, which the constructor explains; or if it holds
        arrays that `heronry cache import` sealed.
        """
        try:
            reader = CacheReader(_folder(str(options.get("checkpoint"))))
        except HeronryError:
            return None
        return reader if _is_cache(reader.provenance) else None

    def prepare(self, utterances: Sequence[Utterance]) -> Inputs:
        """The stored frames `[B, T, D]` (bins: `[B, T]`) and their mask."""
        stream = self.reader.batch([self._row(utterance) for utterance in utterances])
        return Inputs.of(utterances, values=stream.values, mask=stream.mask)

    def __call__(self, inputs: Inputs) -> Stream:
        """Frames that `prepare` read."""
        return Stream(inputs.tensors["values"], inputs.tensors["mask"])

    def provenance(self) -> dict[str, Any]:
        """Record of the import, and the hash of the shards' content."""
        return {IMPORTED: self.source, "revision": self.revision}

    def _row(self, utterance: Utterance) -> str:
        """Id of the imported row with the features of an utterance."""
        content = content_of(utterance, self.reads)
        if content is None:
            raise UtteranceError(utterance.id, f"has no {self.reads}")
        if content not in self.ids:
            reason = f"no features were imported for its {self.reads}"
            raise UtteranceError(utterance.id, self.rejected.get(utterance.id, reason))
        return self.ids[content]


def content_sha256(reader: CacheReader) -> str:
    """Hash of everything in a folder of shards, by their checksums in order."""
    checksums = [shard.checksum for shard in reader.shards]
    return hashlib.sha256(json.dumps(checksums).encode()).hexdigest()


def reads_of(provenance: Mapping[str, Any]) -> Reads | None:
    """What features were computed from, by their provenance; None of a kind that is not here."""
    source, kind = provenance.get(IMPORTED), provenance.get("kind")
    if isinstance(source, Mapping):
        reads: Reads | None = source.get("reads")
        return reads
    found: Reads | None = load(PACKAGE, kind).reads if kind in kinds(PACKAGE) else None
    return found


def _modality(folder: Path, provenance: Mapping[str, Any], given: Reads | None) -> Reads:
    known = reads_of(provenance)
    kind = provenance.get("kind")
    if known is None and _is_cache(provenance):
        if given is None:
            raise CheckpointError(
                f"{folder} holds features of the kind {kind!r}, which this project does not have; "
                "expected to know what they were computed from: write `reads: audio` or `reads: "
                "text` into the entry, or copy the kind's file into features/backbones"
            )
        return given
    if known not in ("audio", "text"):
        what = "recognised words" if known == "asr" else "what no backbone extracted"
        raise CheckpointError(
            f"{folder} holds features of {what}; expected those of audio or text: a cache folder "
            "of another project, or what `heronry cache import` wrote"
        )
    if given not in (None, known):
        raise ParamsError(
            f"{folder}: given `reads: {given}`; its features were computed from {known}: leave "
            "`reads` out"
        )
    return known


def _is_cache(provenance: Mapping[str, Any]) -> bool:
    """Whether features came out of extraction, and not straight out of `heronry cache import`."""
    return "kind" in provenance


def _check_dtype(reader: CacheReader) -> None:
    """Refuse a provenance that says another stored precision than the frames have."""
    own, said = reader.shards[0].stored.dtype.name, reader.provenance.get("store_dtype")
    if own != said:
        raise CheckpointError(
            f"{reader.folder} holds {own} frames, of which its provenance says `store_dtype` "
            f"{said!r}; expected the same of both, as extraction writes a cache: import the frames "
            "as arrays, `heronry cache import`, or have the cache extracted again"
        )


def _folder(checkpoint: str) -> Path:
    """The folder of some shards, or a `CheckpointError` that says how to bring it."""
    first = Checkpoint(checkpoint).beside(_FILES[0], _FILES)
    if first is not None:
        return first.parent
    listed = sorted(path.name for path in Path(checkpoint).glob("*"))[:5]
    found = f"is a folder of {listed or 'nothing'}" if Path(checkpoint).is_dir() else "are not here"
    ways = (
        "import them: heronry cache import CORPUS BACKBONE FROM; or put the "
        "folder below the one that HERONRY_CHECKPOINTS names"
    )
    if in_registry(checkpoint):
        ways = (
            f"bring a cache folder of another project: dvc pull {checkpoint}.dvc; or, the first "
            f"time, dvc import ADDRESS cache/CORPUS/BACKBONE -o {checkpoint}"
        )
    raise CheckpointError(
        f"imported features {checkpoint!r} {found}; expected a folder of shards\n  {ways}"
    )


def _opened(checkpoint: str) -> CacheReader:
    """A verified folder of shards."""
    try:
        return CacheReader(_folder(checkpoint), verify=True)
    except DamagedShardError as error:
        # What doctor would repair are caches of this project.
        fault = str(error).partition(ADVICE.partition("{")[0])[0].rstrip("; :")
        again = "import them again"
        if in_registry(checkpoint):
            again = (
                f"delete the folder and bring it again, `dvc pull {checkpoint}.dvc`; if it is so "
                f"where it comes from, have it put right there, then `dvc update {checkpoint}.dvc`"
            )
        raise CheckpointError(
            f"imported features {checkpoint!r} cannot be read: {fault}\n  {again}"
        ) from error
    except CacheError as error:
        raise CheckpointError(
            f"imported features {checkpoint!r} cannot be read: {error}"
        ) from error


build: BackboneFactory = Imported
