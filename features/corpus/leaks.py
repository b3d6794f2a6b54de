"""Find leaks between the splits of a fold, and refuse those that inflate the score.

Refused, unless the corpus's entry allows it: a speaker, dialogue or recording in more than one
split, and a checkpoint that was trained on utterances to be scored. Files of equal content are one
recording, whatever their names. A scripted sentence in several splits is only reported: where all
speakers read the same few sentences it is unavoidable, and the words carry no emotion.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, Self, get_args

from features.arguments import Record
from features.corpus.adapter import Item
from features.corpus.manifest import USED, Label
from features.errors import ManifestError

LeakKind = Literal["speaker", "dialogue", "recording", "checkpoint"]
REFUSED: tuple[str, ...] = get_args(LeakKind)
_ALIASES = 3  # names of one recording that an example quotes
_EXAMPLES = 5
_SCORED = ("valid", "test")
_SCRIPTED = "all speakers read the same few, so that a model of the text alone must sit at chance"


@dataclass(frozen=True)
class Leak(Record):
    """Values of one kind that occur in more than one split of a fold.

    Attributes:
        kind: speaker, dialogue, recording, checkpoint or sentence.
        count: Number of such values; for a checkpoint: of scored utterances it was trained on.
        total: Number of all values; for a checkpoint: of scored utterances.
        folds: Folds with such values.
        examples: Up to five of them, with the splits in which each occurs.
        source: Slot and backbone of a checkpoint.
    """

    kind: str
    count: int
    total: int
    folds: tuple[int, ...]
    examples: tuple[str, ...]
    source: str = ""

    def __str__(self) -> str:
        what = "occur in more than one split"
        if self.kind == "checkpoint":
            what = f"validation and test utterances were in the training data of {self.source}"
        return (
            f"{self.kind}: {self.count} of {self.total} {what} "
            f"(fold {', '.join(map(str, self.folds))}), such as {'; '.join(self.examples)}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Fields as JSON values; an empty source is omitted."""
        fields = dataclasses.asdict(self) | {
            "folds": list(self.folds),
            "examples": list(self.examples),
        }
        return {name: value for name, value in fields.items() if value != ""}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """Inverse of `to_dict`.

        Raises:
            ManifestError: If a field is unknown or missing.
        """
        try:
            tuples = {name: tuple(fields[name]) for name in ("folds", "examples")}
            return cls(**{**fields, **tuples})
        except (KeyError, TypeError) as error:
            raise ManifestError(
                f"leak verdict {fields!r} is malformed ({error}); expected that of `prepare`: run "
                "`dvc repro` to prepare the corpus again"
            ) from error


def find_leaks(
    items: Sequence[Item | Label],
    splits: Sequence[Sequence[str]],
    contents: Mapping[str, str] | None = None,
) -> list[Leak]:
    """Find speakers, dialogues, recordings and sentences in more than one split of a fold.

    Args:
        items: Labelled utterances, or their labels.
        splits: For each of them, one split per fold; utterances in `unused` and `unlabelled`,
            which no score rests on, leak nothing.
        contents: SHA-256 of audio files by path. Spans of one file, overlapping or not, share a
            recording, and so do files of equal content. Paths missing here differ from all others.

    Returns:
        Leaks, worst kind first.
    """
    found = (
        _find("speaker", [item.speaker for item in items], splits),
        _find("dialogue", [item.dialogue for item in items], splits),
        _find("recording", [item.audio for item in items], splits, contents or {}),
        _find("sentence", [item.sentence for item in items], splits),
    )
    return [leak for leak in found if leak is not None]


def find_seen_leak(labels: Sequence[Label], seen: Mapping[str, str], source: str) -> Leak | None:
    """Find validation and test utterances that a checkpoint was trained on.

    Args:
        labels: Labels of all utterances.
        seen: Reasons by id why utterances count as trained on.
        source: Slot and backbone of the checkpoint.
    """
    scored = [label for label in labels if not set(_SCORED).isdisjoint(label.splits)]
    hits = [label for label in scored if label.id in seen]
    if not hits:
        return None
    folds = {fold for hit in hits for fold, split in enumerate(hit.splits) if split in _SCORED}
    examples = tuple(f"{hit.id} ({seen[hit.id]})" for hit in hits[:_EXAMPLES])
    return Leak("checkpoint", len(hits), len(scored), tuple(sorted(folds)), examples, source)


def leak_lines(leaks: Sequence[Leak], *, scripted: bool = False) -> list[str]:
    """One line of text per leak; explains the sentences of a scripted corpus."""
    return [
        f"{leak}: {_SCRIPTED}" if scripted and leak.kind == "sentence" else str(leak)
        for leak in leaks
    ]


def gate(leaks: Sequence[Leak], allow: Collection[str], *, corpus: str) -> None:
    """Refuse leaks of speakers, dialogues, recordings and checkpoints that are not allowed.

    Raises:
        ManifestError: Naming the leaks, and the line of params.yaml that allows them.
    """
    refused = [leak for leak in leaks if leak.kind in REFUSED and leak.kind not in allow]
    if not refused:
        return
    found = {leak.kind for leak in refused}
    remedies = []
    if found - {"checkpoint"}:
        remedies.append(
            "Expected splits that share no speaker, dialogue or recording: choose another "
            f"corpora.{corpus}.protocol or correct the splits."
        )
    if "checkpoint" in found:
        remedies.append(
            "Expected backbones that were trained on none of what is scored: take a checkpoint "
            "that was trained on the training split alone, or the one it began with."
        )
    listed, kinds = "\n  ".join(map(str, refused)), ", ".join(sorted({*allow, *found}))
    raise ManifestError(
        f"corpus {corpus!r}: the splits leak:\n  {listed}\n{' '.join(remedies)} To score with the "
        f"leak and say so in the report, set corpora.{corpus}.allow_leak: [{kinds}]"
    )


@dataclass
class _Seen:
    """Names of one value and the splits it occurs in, each in order of appearance."""

    names: dict[str, None] = field(default_factory=dict)
    splits: dict[str, None] = field(default_factory=dict)

    def __str__(self) -> str:
        names = list(self.names)
        if len(names) > _ALIASES:
            names[_ALIASES:] = [f"{len(names) - _ALIASES} more"]
        return f"{' = '.join(names)} ({', '.join(self.splits)})"


def _find(
    kind: str,
    names: Sequence[str | None],
    splits: Sequence[Sequence[str]],
    same: Mapping[str, str] = MappingProxyType({}),
) -> Leak | None:
    """Find the values of one kind in more than one split; equal values of `same` are one."""
    seen: dict[tuple[str, int], _Seen] = {}
    for name, row in zip(names, splits, strict=True):
        if name is None:
            continue
        for fold, split in enumerate(row):
            if split in USED:
                found = seen.setdefault((same.get(name, name), fold), _Seen())
                # Keys of a dict are a set that keeps its order.
                found.names[name] = found.splits[split] = None
    crossing = {key: found for key, found in seen.items() if len(found.splits) > 1}
    if not crossing:
        return None
    examples = {value: str(found) for (value, _), found in crossing.items()}
    return Leak(
        kind=kind,
        count=len(examples),
        total=len({value for value, _ in seen}),
        folds=tuple(sorted({fold for _, fold in crossing})),
        examples=tuple(list(examples.values())[:_EXAMPLES]),
    )
