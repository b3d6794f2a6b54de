"""Find leaks between the splits of a fold, and refuse those that inflate the score.

Refused, unless the corpus's entry allows it: a speaker, dialogue or recording in more than one
split, and a checkpoint that was trained on utterances to be scored. Files of equal content are one
recording, whatever their names. A scripted sentence in several splits is only reported: where all
speakers read the same few sentences it is unavoidable, and the words carry no emotion.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal, Self, get_args

import numpy as np
from numpy.typing import NDArray

from features.arguments import Record
from features.corpus.adapter import Item
from features.corpus.manifest import USED, Label
from features.errors import ManifestError

LeakKind = Literal["speaker", "dialogue", "recording", "checkpoint"]
REFUSED: tuple[str, ...] = get_args(LeakKind)
_ALIASES = 3  # names of one recording that an example quotes
_EXAMPLES = 5
_PART_BYTES = 1 << 24  # of splits that are looked at together
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
    rows = _Rows(splits)
    found = (
        _find("speaker", [item.speaker for item in items], rows),
        _find("dialogue", [item.dialogue for item in items], rows),
        _find("recording", [item.audio for item in items], rows, contents or {}),
        _find("sentence", [item.sentence for item in items], rows),
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


class _Rows:
    """Splits of all utterances, where many have the same: under a protocol, those of one group.

    Attributes:
        rows: Distinct rows of splits, R of them.
        of: `[N]` the row of each utterance.
        bits: `[R, F]` for each fold a bit of the split, 0 of one that leaks nothing.
    """

    def __init__(self, splits: Sequence[Sequence[str]]) -> None:
        number: dict[tuple[str, ...], int] = {}
        self.of = np.fromiter(
            (number.setdefault(tuple(row), len(number)) for row in splits), np.int64, len(splits)
        )
        self.rows = list(number)
        bit = {split: 1 << place for place, split in enumerate(USED)}
        self.bits = np.zeros((len(number), max(map(len, number), default=0)), np.uint8)
        for place, row in enumerate(number):
            self.bits[place, : len(row)] = [bit.get(split, 0) for split in row]


def _find(
    kind: str,
    names: Sequence[str | None],
    splits: _Rows,
    same: Mapping[str, str] = MappingProxyType({}),
) -> Leak | None:
    """Find the values of one kind in more than one split; equal values of `same` are one.

    Memory is that of a number for each utterance and value, whatever the number of folds: a value
    is looked at fold by fold only if its utterances have several rows of splits.
    """
    number: dict[str, int] = {}
    values = np.fromiter(
        (
            -1 if name is None else number.setdefault(same.get(name, name), len(number))
            for name in names
        ),
        np.int64,
        len(names),
    )
    del number
    size = len(splits.rows)
    known = np.flatnonzero(values >= 0)
    # Each value with each of its rows of splits, and the first utterance that has both.
    pairs, first = np.unique(values[known] * size + splits.of[known], return_index=True)
    value, row = np.divmod(pairs, max(size, 1))
    first = known[first]
    used = np.asarray(splits.bits.any(1))[row]
    total, count, begun = np.unique(value[used]).size, 0, list[tuple[int, int]]()
    folds = np.zeros(splits.bits.shape[1], bool)
    starts = np.flatnonzero(np.diff(value, prepend=-1))
    several = np.diff(starts, append=len(value)) > 1
    for part in _parts(starts[several], np.append(starts, len(value))[1:][several], splits.bits):
        bits = splits.bits[row[part]]
        ends = np.flatnonzero(np.diff(value[part], prepend=-1))
        together = np.bitwise_or.reduceat(bits, ends, axis=0)
        crossing = (together & (together - 1)) != 0  # more than one bit; 0 - 1 has no common bit
        crosses = crossing.any(1)
        count += int(crosses.sum())
        folds |= crossing.any(0)
        # Where the value first appears in a fold in which it will cross.
        place = np.repeat(np.arange(len(ends)), np.diff(ends, append=len(part)))
        shown = ((bits != 0) & crossing[place]).any(1)
        since = np.minimum.reduceat(np.where(shown, first[part], len(names)), ends)
        begun += zip(since[crosses].tolist(), value[part][ends][crosses].tolist(), strict=True)
        begun = sorted(begun)[:_EXAMPLES]
    if not count:
        return None
    return Leak(
        kind=kind,
        count=count,
        total=total,
        folds=tuple(np.flatnonzero(folds).tolist()),
        examples=tuple(
            _example(names, splits, np.flatnonzero(values == each)) for _, each in begun
        ),
    )


def _parts(
    starts: NDArray[np.int64], stops: NDArray[np.int64], bits: NDArray[np.uint8]
) -> Iterator[NDArray[np.int64]]:
    """Ranges of pairs, whole values at a time, whose rows of splits take some megabytes."""
    most = max(1, _PART_BYTES // max(1, bits.shape[1]))
    ends = np.cumsum(stops - starts)
    done = 0
    while done < len(starts):
        before = ends[done - 1] if done else 0
        until = max(done + 1, int(np.searchsorted(ends, before + most, side="right")))
        each = zip(starts[done:until].tolist(), stops[done:until].tolist(), strict=True)
        yield np.concatenate([np.arange(start, stop) for start, stop in each])
        done = until


def _example(names: Sequence[str | None], splits: _Rows, utterances: NDArray[np.int64]) -> str:
    """A value, by its utterances, with the splits of the last fold that it crosses."""
    seen: dict[int, _Seen] = {}
    for place in utterances.tolist():
        for fold, split in enumerate(splits.rows[splits.of[place]]):
            if split in USED:
                found = seen.setdefault(fold, _Seen())
                # Keys of a dict are a set that keeps its order.
                found.names[str(names[place])] = found.splits[split] = None
    return [str(found) for found in seen.values() if len(found.splits) > 1][-1]
