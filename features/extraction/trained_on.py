"""Reads and writes `trained_on.jsonl`: the utterances that a checkpoint was trained on.

A checkpoint that was fine-tuned on speech of a corpus must not score that speech. Its training
writes `trained_on.jsonl` beside the weights: a JSON object a line, one for each utterance that the
weights were fitted to (not those of the validation split), with

    corpus        name of the corpus; of a union, the member that the utterance is of
    id            of the utterance in its manifest; of a union, in the member's own
    audio_sha256  SHA-256 of the audio file; null or absent without audio
    text_sha256   SHA-256 of the transcript in UTF-8; null or absent without text

Extraction compares it with the manifest and writes `seen.csv` (id, why) into the cache folder. An
utterance counts as seen if corpus and id are equal, or the audio is. Equal texts do not count:
different people say the same. Without `trained_on.jsonl` nothing is known, and nothing is written,
but for checkpoints that are known by name to be trained on the labels of a corpus (`TRAINED_BY`):
which of its utterances they saw is not published, so all of them count as seen.

Of a cache of another project, the checkpoint is the one that its provenance names, and its own
`seen.csv` says which of its utterances that had seen: those of the manifest are found by what the
features were computed from, whatever their ids.
"""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatch
from pathlib import Path

from features.backbone.entry import PACKAGE, BackboneEntry
from features.cache.reader import CacheReader
from features.corpus.manifest import Manifest
from features.corpus.utterance import Member, Utterance
from features.errors import ManifestError
from features.files.reasons import SEEN, read_reasons
from features.files.records import read_rows, write_rows
from features.settings.plugins import load
from features.weights.checkpoint import Checkpoint

TRAINED_ON = "trained_on.jsonl"
# emotion2vec+ seed is fine-tuned on the labels of the 32 corpora of EmoBox (201 of its 294 hours,
# say the cards of model and corpora), base and large on labels that it and its successor gave.
# emotion2vec_base has seen no labels.
EMOBOX = ("*emotion2vec_plus_*",)
TRAINED_BY: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(("crema_d", "emodb", "iemocap", "meld", "ravdess"), EMOBOX),
    "msp_podcast": (
        "audeering/*-msp-dim*",  # wav2vec 2.0 for arousal, dominance and valence
        "3loi/*",  # baselines of the Odyssey 2024 and Interspeech 2025 challenges
        "tiantiaf/*msp-podcast*",  # Vox-Profile
        *EMOBOX,
    ),
}
"""Checkpoints whose training used the labels of a corpus: patterns of names, by kind of corpus."""


@dataclass(frozen=True)
class TrainedOn:
    """A line of `trained_on.jsonl`."""

    corpus: str
    id: str
    audio_sha256: str | None = None
    text_sha256: str | None = None

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            required = name in ("corpus", "id")
            if not (isinstance(value, str) and value) and (required or value is not None):
                raise ManifestError(f"{name} is {value!r}; expected text")


def write_trained_on(
    folder: Path, corpus: str, utterances: Iterable[Utterance], members: Sequence[Member] = ()
) -> None:
    """Write `trained_on.jsonl` beside the weights of a checkpoint.

    Args:
        folder: Folder of the checkpoint.
        corpus: Name of the corpus, as in its manifest.
        utterances: Utterances of the training split, without those of the validation split.
        members: Members of the corpus, if it is a union.
    """
    write_rows(folder / TRAINED_ON, (_row(corpus, each, members) for each in utterances))


def read_trained_on(entry: BackboneEntry) -> list[TrainedOn] | None:
    """Utterances that a backbone's checkpoint was trained on; None if its folder does not say.

    Raises:
        ManifestError: If the file is malformed, naming the line.
    """
    name, revision, package = (entry.options.get(k) for k in ("checkpoint", "revision", "package"))
    if name is None:
        return None
    files = getattr(load(PACKAGE, entry.kind), "files", ())
    path = Checkpoint(str(name), revision, package).beside(TRAINED_ON, files)
    return None if path is None else list(read_rows(path, TrainedOn))


def find_seen(manifest: Manifest, rows: Iterable[TrainedOn]) -> dict[str, str]:
    """Reasons by id why utterances of a manifest count as seen, in its order."""
    names: set[tuple[str, str]] = set()
    heard: dict[str, TrainedOn] = {}
    for row in rows:
        names.add((row.corpus, row.id))
        if row.audio_sha256 is not None:
            heard.setdefault(row.audio_sha256, row)
    seen = {}
    for utterance in manifest:
        # Spans of one file share its hash; a row may also give the hash of file and span.
        audio = (utterance.sha256, utterance.audio_content)
        same = next((heard[value] for value in audio if value in heard), None)
        if (manifest.corpus, utterance.id) in names:
            seen[utterance.id] = "it was trained on"
        elif same is not None:
            seen[utterance.id] = f"its audio is that of {same.id} of the corpus {same.corpus}"
    return seen


def seen_by(entry: BackboneEntry, manifest: Manifest) -> dict[str, str] | None:
    """Reasons by id why utterances count as seen by a checkpoint; None if nothing is known of it.

    Raises:
        ManifestError: If its `trained_on.jsonl` is malformed, naming the line.
    """
    if manifest.members:
        return _seen_of_members(entry, manifest)
    cache_of = getattr(load(PACKAGE, entry.kind), "cache_of", None)
    theirs: CacheReader | None = None if cache_of is None else cache_of(entry.options)
    named = _seen_by_name(entry.options.get("checkpoint"), manifest)
    if theirs is not None:
        named |= _seen_by_name(theirs.provenance.get("checkpoint"), manifest)
    rows = read_trained_on(entry)
    there = None if theirs is None else _seen_there(theirs, manifest)
    if not named and rows is None and there is None:
        return None
    return named | find_seen(manifest, rows or ()) | (there or {})


def _seen_there(theirs: CacheReader, manifest: Manifest) -> dict[str, str] | None:
    """Utterances that a cache of another project has as seen, if it has a list of them."""
    path = theirs.folder / SEEN
    if not path.exists():
        return None
    seen = read_reasons(path)
    ids: dict[str, list[str]] = {}
    for shard in theirs.shards:
        for id, content in zip(shard.named, shard.contents, strict=True):
            ids.setdefault(content, []).append(id)
    found = {}
    for utterance in manifest:
        same = ids.get(utterance.audio_content or "", [])
        if not same:
            same = ids.get(utterance.text_content or "", [])
            # Different people say the same; whether the one who was seen did is known by the id.
            same = [utterance.id] if utterance.id in same else same
        first = next((id for id in same if id in seen), None)
        if first is not None:
            there = "" if first == utterance.id else f"as {first} of the other project: "
            found[utterance.id] = f"{there}{seen[first]}"
    return found


def _seen_of_members(entry: BackboneEntry, manifest: Manifest) -> dict[str, str] | None:
    """`seen_by` of a union: that of its members, which weights and lists of training data name."""
    rows, seen, known = iter(manifest), dict[str, str](), False
    for member in manifest.members:
        own = (
            replace(each, id=each.id.removeprefix(member.prefix))
            for each in itertools.islice(rows, member.rows)
        )
        found = seen_by(entry, Manifest(member.name, tuple(own), member.kind))
        known |= found is not None
        seen |= {member.prefix + id: why for id, why in (found or {}).items()}
    return seen if known else None


def _seen_by_name(checkpoint: object, manifest: Manifest) -> dict[str, str]:
    """All utterances, if the checkpoint is known by name."""
    name = str(checkpoint or "")
    if not any(fnmatch(name.lower(), known) for known in TRAINED_BY.get(manifest.kind, ())):
        return {}
    why = f"{name} was trained on labels of this corpus; which of them it saw is not published"
    return {utterance.id: why for utterance in manifest}


def _row(corpus: str, utterance: Utterance, members: Sequence[Member]) -> TrainedOn:
    text = utterance.text
    # As the member's own, in which the member itself and other unions of it know the utterance.
    own = next((each for each in members if utterance.id.startswith(each.prefix)), None)
    return TrainedOn(
        corpus=corpus if own is None else own.name,
        id=utterance.id if own is None else utterance.id.removeprefix(own.prefix),
        audio_sha256=utterance.sha256,
        text_sha256=None if text is None else hashlib.sha256(text.encode()).hexdigest(),
    )
