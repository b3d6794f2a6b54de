"""What corpora have in common: the classes of their union, and the utterances that are tested.

Everything is told apart by the names of the union: utterances and speakers as `<corpus>/<name>`,
classes as the union's entry maps them. A corpus is tested on the utterances of its own test splits
that the union keeps, whatever the model was trained on, so that a column of the matrix compares
models on the same utterances.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from features.corpus.entry import CorpusEntry
from features.corpus.labels_folder import read_labelled
from features.corpus.leaks import REFUSED, Leak, find_leaks
from features.corpus.manifest import Label, Manifest
from features.errors import ManifestError


@dataclass(frozen=True)
class TargetCorpus:
    """A corpus as it is tested.

    Attributes:
        corpus: Its name.
        classes: Its own classes.
        map: Class of the union by its own; None: left out.
        labels: Its own labels of the utterances of its test splits, those of classes that are left
            out included: a dialogue is read as a whole.
        truth: Labels of the union by its own id, of those that are scored.
    """

    corpus: str
    classes: tuple[str, ...]
    map: Mapping[str, str | None]
    labels: tuple[Label, ...]
    truth: Mapping[str, Label]


@dataclass(frozen=True)
class Ground:
    """Corpora and their union.

    Attributes:
        union: Name of the union.
        classes: Classes of the union.
        corpora: Members of the union by name.
        leaks: Leaks from one corpus to the test utterances of another, each beginning with the
            names of both.
    """

    union: str
    classes: tuple[str, ...]
    corpora: Mapping[str, TargetCorpus]
    leaks: tuple[str, ...]

    @classmethod
    def read(cls, union: CorpusEntry) -> Self:
        """Read the prepared corpora, and refuse leaks between them that the union does not allow.

        Raises:
            ManifestError: If a corpus is not prepared, something leaks, or no utterance is tested.
        """
        card, labels = read_labelled(Path("data", union.name, "labels"))
        known = {label.id: label for label in labels}
        tested_there = {label.id for label in labels if "test" in label.splits}
        same = {
            name: group[0] for group in union.options.get("same_speakers", ()) for name in group
        }
        corpora, taught = {}, {}
        for member in union.members:
            own_card, own = read_labelled(Path("data", member.name, "labels"))
            tested = tuple(label for label in own if "test" in label.splits)
            names = {label.id: f"{member.name}/{label.id}" for label in tested}
            truth = {
                id: known[name]
                for id, name in names.items()
                if name in tested_there and known[name].label is not None
            }
            if not truth:
                raise ManifestError(
                    f"no utterance is in the test split of {member.name} and of {union.name}; "
                    "expected some: let the union keep the splits of its members, protocol: "
                    "official"
                )
            classes = tuple(own_card["classes"])
            declared = (union.options.get("labels") or {}).get(member.name, {})
            mapped = {name: declared.get(name, name) for name in classes}
            corpora[member.name] = TargetCorpus(member.name, classes, mapped, tested, truth)
            # Those of classes that the union leaves out were trained on as well.
            taught[member.name] = [
                _as_trained(member.name, label, same)
                for label in own
                if not {"train", "valid"}.isdisjoint(label.splits)
            ]
        leaks = _leaks(union, taught, corpora)
        return cls(union.name, tuple(card["classes"]), corpora, leaks)


def _as_trained(name: str, label: Label, same: Mapping[str, str]) -> Label:
    """A label of a corpus as one of the union, in its training split; its model has seen it."""
    speaker = f"{name}/{label.speaker}"
    return dataclasses.replace(
        label,
        id=f"{name}/{label.id}",
        speaker=same.get(speaker, speaker),
        audio=label.audio and f"{name}/{label.audio}",
        dialogue=label.dialogue and f"{name}/{label.dialogue}",
        splits=("train",),
    )


def _leaks(
    union: CorpusEntry,
    taught: Mapping[str, Sequence[Label]],
    corpora: Mapping[str, TargetCorpus],
) -> tuple[str, ...]:
    """Speakers, dialogues and recordings of one corpus that are tested in another, as lines."""
    manifest = Manifest.read(Path("data", union.name, "utterances"))
    contents = {u.audio: u.sha256 for u in manifest if u.audio and u.sha256}
    found: list[tuple[str, str, Leak]] = []
    for source, seen in taught.items():
        for target, tested in corpora.items():
            if source == target:
                continue
            heard = [dataclasses.replace(each, splits=("test",)) for each in tested.truth.values()]
            both = [*seen, *heard]
            leaks = find_leaks(both, [label.splits for label in both], contents)
            found += [(source, target, leak) for leak in leaks if leak.kind in REFUSED]
    lines = [f"{source} to {target}: {leak}" for source, target, leak in found]
    refused = [
        line
        for line, (*_, leak) in zip(lines, found, strict=True)
        if leak.kind not in union.allow_leak
    ]
    if refused:
        kinds = ", ".join(sorted({*union.allow_leak, *(leak.kind for *_, leak in found)}))
        listed = "\n  ".join(refused)
        raise ManifestError(
            f"corpora of {union.name!r} leak into each other's test splits:\n  {listed}\nExpected "
            "corpora that share no speaker, dialogue or recording: leave these utterances out of "
            "one of them. To score with the leak and say so on the page, set "
            f"corpora.{union.name}.allow_leak: [{kinds}]"
        )
    return tuple(lines)
