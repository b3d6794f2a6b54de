"""What leaks between the splits of a fold, flattering the score.

A speaker, a dialogue or a recording on both sides is refused unless the corpus's entry allows it,
and so is a checkpoint that was trained on utterances which are to be scored. A recording is known
by its content: files that are equal are one recording, whatever their names. A scripted sentence on
both sides is reported only: where all speakers read the same few, it cannot be otherwise, and the
words carry no emotion.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Self, get_args

from features.arguments import Record
from features.corpus.adapter import Item
from features.corpus.manifest import Label
from features.errors import ManifestError

LeakKind = Literal["speaker", "dialogue", "recording", "checkpoint"]
REFUSED: tuple[str, ...] = get_args(LeakKind)
_FIELDS = {
    "speaker": "speaker",
    "dialogue": "dialogue",
    "recording": "audio",
    "sentence": "sentence",
}
_ALIASES = 3  # names of one recording that an example quotes
_EXAMPLES = 5
_SCORED = ("valid", "test")
_SCRIPTED = "all speakers read the same few, so that a model of the text alone must sit at chance"


@dataclass(frozen=True)
class Leak(Record):
    """Values of one kind that cross splits.

    Attributes:
        kind: speaker, dialogue, recording, checkpoint or sentence.
        count: How many values do so in some fold; of a checkpoint: scored utterances it has seen.
        total: How many values there are; of a checkpoint: scored utterances.
        folds: Folds in which some do.
        examples: Up to five, with the splits in which each occurs.
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
        """As JSON reads it back; an empty source is left out."""
        fields = dataclasses.asdict(self) | {
            "folds": list(self.folds),
            "examples": list(self.examples),
        }
        return {name: value for name, value in fields.items() if value != ""}

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> Self:
        """The inverse of `to_dict`.

        Raises:
            ManifestError: If a field is unknown or missing.
        """
        try:
            given = {**fields, "folds": tuple(fields["folds"])}
            return cls(**given | {"examples": tuple(fields["examples"])})
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
    """What crosses the splits, worst kind first; `unused` utterances leak nothing.

    Args:
        items: Labelled utterances, or their labels.
        splits: For each of them, one split per fold.
        contents: SHA-256 of audio files by path. Spans of one file, overlapping or not, share a
            recording, and so do files of equal content. A path that is not in here is itself.
    """
    same: dict[str, Mapping[str, str]] = {"recording": contents or {}}
    found = (
        _find(kind, [getattr(item, name) for item in items], splits, same.get(kind, {}))
        for kind, name in _FIELDS.items()
    )
    return [leak for leak in found if leak is not None]


def find_seen_leak(labels: Sequence[Label], seen: Mapping[str, str], source: str) -> Leak | None:
    """Utterances to be scored that a checkpoint was trained on.

    Args:
        labels: Of all utterances.
        seen: Why an utterance counts as seen, by id.
        source: Slot and backbone.
    """
    scored = [label for label in labels if not set(_SCORED).isdisjoint(label.splits)]
    hits = [label for label in scored if label.id in seen]
    if not hits:
        return None
    folds = {fold for hit in hits for fold, split in enumerate(hit.splits) if split in _SCORED}
    examples = tuple(f"{hit.id} ({seen[hit.id]})" for hit in hits[:_EXAMPLES])
    return Leak("checkpoint", len(hits), len(scored), tuple(sorted(folds)), examples, source)


def lines(leaks: Sequence[Leak], *, scripted: bool = False) -> list[str]:
    """For people, one line a leak; of a scripted corpus, what its sentences mean for a score."""
    return [
        f"{leak}: {_SCRIPTED}" if scripted and leak.kind == "sentence" else str(leak)
        for leak in leaks
    ]


def gate(leaks: Sequence[Leak], allow: Collection[str], *, corpus: str) -> None:
    """Refuse leaks of speakers, dialogues, recordings and checkpoints that are not allowed.

    Raises:
        ManifestError: Naming them, and the line of params.yaml that allows them.
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
    """The names of one value and the splits it is in, each in order of appearance."""

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
    same: Mapping[str, str],
) -> Leak | None:
    seen: dict[tuple[str, int], _Seen] = {}
    for name, row in zip(names, splits, strict=True):
        if name is None:
            continue
        for fold, split in enumerate(row):
            if split != "unused":
                found = seen.setdefault((same.get(name, name), fold), _Seen())
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
