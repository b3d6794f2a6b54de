"""What is in the splits, and what leaks: occurs in more than one of a fold, flattering the score.

A speaker, a dialogue or a recording on both sides is refused unless the corpus's entry allows it. A
recording is known by its content: files that are equal are one recording, whatever their names. A
scripted sentence on both sides is reported only: where all speakers read the same few, it cannot be
otherwise, and the words carry no emotion.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, get_args

from features.corpora._adapter import Item
from features.errors import ManifestError
from features.manifest import SPLITS

LeakKind = Literal["speaker", "dialogue", "recording"]
REFUSED: tuple[str, ...] = get_args(LeakKind)
_FIELDS = {
    "speaker": "speaker",
    "dialogue": "dialogue",
    "recording": "audio",
    "sentence": "sentence",
}
_ALIASES = 3  # names of one recording that an example quotes


@dataclass(frozen=True)
class Leak:
    """Values of one kind that cross splits.

    Attributes:
        kind: speaker, dialogue, recording or sentence.
        count: How many values do so in some fold.
        total: How many values there are.
        folds: Folds in which some do.
        examples: Up to five, with the splits in which each occurs.
    """

    kind: str
    count: int
    total: int
    folds: tuple[int, ...]
    examples: tuple[str, ...]

    def __str__(self) -> str:
        return (
            f"{self.kind}: {self.count} of {self.total} occur in more than one split "
            f"(fold {', '.join(map(str, self.folds))}), such as {'; '.join(self.examples)}"
        )


def find_leaks(
    items: Sequence[Item],
    splits: Sequence[Sequence[str]],
    contents: Mapping[str, str] | None = None,
) -> list[Leak]:
    """What crosses the splits, worst kind first; `unused` utterances leak nothing.

    Args:
        items: Labelled utterances.
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


def gate(leaks: Sequence[Leak], allow: Collection[str], *, corpus: str) -> None:
    """Refuse leaks of speakers, dialogues and recordings that are not allowed.

    Raises:
        ManifestError: Naming them, and the line of params.yaml that allows them.
    """
    refused = [leak for leak in leaks if leak.kind in REFUSED and leak.kind not in allow]
    if not refused:
        return
    kinds = sorted({*allow, *(leak.kind for leak in refused)})
    listed = "\n  ".join(map(str, refused))
    raise ManifestError(
        f"corpus {corpus!r}: the splits leak:\n  {listed}\n"
        f"Expected splits that share no speaker, dialogue or recording: choose another "
        f"corpora.{corpus}.protocol or correct the splits. To score with the leak and say so in "
        f"the report, set corpora.{corpus}.allow_leak: [{', '.join(kinds)}]"
    )


def count_classes(
    items: Sequence[Item], splits: Sequence[Sequence[str]], classes: Sequence[str]
) -> list[dict[str, dict[str, int]]]:
    """Utterances by split and class, in each fold; every class is named, zeros included."""
    return [
        {
            split: {name: [item.label for item in held].count(name) for name in classes}
            for split, held in fold.items()
        }
        for fold in _folds(items, splits)
    ]


def count_speakers(items: Sequence[Item], splits: Sequence[Sequence[str]]) -> list[dict[str, int]]:
    """Speakers by split, in each fold."""
    return [
        {split: len({item.speaker for item in held}) for split, held in fold.items()}
        for fold in _folds(items, splits)
    ]


def _folds(
    items: Sequence[Item], splits: Sequence[Sequence[str]]
) -> Iterator[dict[str, list[Item]]]:
    for column in zip(*splits, strict=True):
        held: dict[str, list[Item]] = {
            split: [] for split in SPLITS if split != "unused" or split in column
        }
        for item, split in zip(items, column, strict=True):
            held[split].append(item)
        yield held


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
        examples=tuple(list(examples.values())[:5]),
    )
