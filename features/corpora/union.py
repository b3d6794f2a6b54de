"""Union of other corpora, which trains like any corpus and shares the features of its members.

`of` names entries of `corpora`, each of which is read as its own `prepare` reads it. What was
`<id>` in the member `a` is `a/<id>` here, and so are speakers, dialogues and sessions, so that no
two members are confused. People who are in several members are declared in `same_speakers`.

Classes: a class is the same in all members if all have it by that name. Any other is declared in
`labels`: to which class of the union it belongs, that it is a class of its own, or that it is left
out. Nothing is guessed, so that `happy` and `joy` are one class only where the entry says so.

Splits: with `protocol: official` those of the members, each by its own protocol. Members of one
fold are trained on in every fold and tested in the first, so that no utterance is tested twice.
Any other protocol divides the speakers of all members anew. In both cases a speaker, or a recording
(by its hash), of two members may not lie in two splits.

Attributes of the same name must have the same scale. Votes follow the classes; those for a class
that is left out count as votes outside the classes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence, Set
from dataclasses import replace
from pathlib import Path
from typing import Annotated, ClassVar

from features.arguments import one_of
from features.corpus.adapter import CorpusFactory, Item, Source, Target
from features.corpus.entry import CorpusEntry
from features.corpus.manifest import UNLABELLED
from features.corpus.ratings import Rating
from features.corpus.survey import Found, Survey
from features.corpus.targets import chosen, classes_of, lacks_targets, scales_of
from features.errors import ManifestError
from features.ranges import MinLen

ClassMap = Mapping[str, str | None]
LEFT_OUT = "its class {!r} is left out of the union"


class Union:
    """Adapter of a union, which `prepare` gives its members as it found them.

    Args:
        root: Not used: each member has its own.
        of: Names of the members, entries of `corpora`.
        labels: By member, the class of the union by the member's own; null: left out.
        same_speakers: Groups of speakers, each `<member>/<speaker>`, that are one person.
        targets: What to yield of what the members' own entries ask for.
        members: Entries of the members.
    """

    source: ClassVar[Source] = Source(
        title="union of corpora",
        licence="those of its members",
        citation="those of its members",
        obtain="It consists of other entries of `corpora`, which have their own roots.",
    )
    generated: ClassVar[bool] = True  # it needs no root of its own
    offers: ClassVar[tuple[Target, ...]] = ("classes", "votes", "attributes")

    def __init__(
        self,
        root: Path,  # noqa: ARG002
        *,
        of: Annotated[Sequence[str], MinLen(1)],
        labels: Mapping[str, ClassMap] | None = None,
        same_speakers: Sequence[Sequence[str]] = (),
        targets: Sequence[Target] = ("classes",),
        members: Sequence[CorpusEntry] = (),  # noqa: ARG002
    ) -> None:
        self._of, self._labels, self._targets = tuple(of), labels or {}, tuple(targets)
        self._groups = same_speakers
        self._same = {name: group[0] for group in same_speakers for name in group}
        self._parts: Sequence[Found] = ()
        self._maps: Mapping[str, ClassMap] = {}
        self.classes: tuple[str, ...] = ()
        self.scales: dict[str, tuple[float, float]] = {}

    def items(self) -> Iterator[Item]:
        """Labelled utterances of the members that were joined."""
        for part in self._parts:
            yield from (self._own(part.entry.name, item) for item in part.survey.labelled)

    def ratings(self) -> Iterator[Rating]:
        """What each rater said, once members were joined."""
        for part in self._parts:
            name, classes = part.entry.name, self._maps[part.entry.name]
            for each in getattr(part.corpus, "ratings", tuple)():
                # What is none of the member's classes may be the name of another member's.
                said = [
                    classes.get(label) or f"{name}/{label}"
                    for label in (each.label, *(each.secondary or ()))
                    if label is not None
                ]
                first, secondary = (None, said) if each.label is None else (said[0], said[1:])
                yield replace(
                    each,
                    id=f"{name}/{each.id}",
                    rater=f"{name}/{each.rater}",
                    label=first,
                    secondary=None if each.secondary is None else tuple(secondary),
                )

    def join(self, entry: CorpusEntry, parts: Sequence[Found]) -> Found:
        """The union of its members.

        Args:
            entry: Its own entry.
            parts: Its members, in order; with splits, unless the union makes its own.

        Raises:
            ManifestError: If classes, scales, speakers or numbers of folds do not fit; all that is
                wrong is listed.
        """
        self._parts, where = parts, f"corpora.{entry.name}"
        problems = [*self._join_classes(where), *self._join_scales(where)]
        problems += self._speaker_problems(where)
        splits, faults = _joined_splits(entry, parts)
        if problems + faults:
            raise ManifestError("\n".join(problems + faults))
        self._describe()
        survey = Survey()
        places = [self._add(survey, part) for part in parts]
        kept = None
        if splits is not None:
            kept = [of[place] for of, some in zip(splits, places, strict=True) for place in some]
        total = sum(part.total for part in parts)
        return Found(entry, self, parts[0].root, total, survey, kept)

    def _join_classes(self, where: str) -> Iterator[str]:
        """Set the classes and the map of each member; what is wrong with them, a line each."""
        own = {part.entry.name: classes_of(part.corpus, self._targets) for part in self._parts}
        self._maps = {name: {} for name in own}
        if not {"classes", "votes"} & set(self._targets):
            return
        for name, given in self._labels.items():
            if name not in own:
                yield f"{where}.labels: given {name!r}; expected {one_of(name, own)}"
                continue
            for label in given:
                if label not in own[name]:
                    expected = one_of(label, own[name])
                    yield f"{where}.labels.{name}: given {label!r}; expected {expected}"
        self._maps = {
            name: {c: self._labels.get(name, {}).get(c, c) for c in classes}
            for name, classes in own.items()
        }
        for part in self._parts:
            name = part.entry.name
            counts = Counter(item.label for item in part.survey.labelled)
            for label in own[name]:
                others = [m for m in own if label not in self._maps[m].values()]
                if others and label not in self._labels.get(name, {}):
                    yield (
                        f"{where}.labels: the class {label!r} of {name} ({counts[label]} "
                        f"utterances) is not in {', '.join(others)}; expected what it is in the "
                        f"union: {{{name}: {{{label}: <class of the union>}}}}, or "
                        f"{{{name}: {{{label}: {label}}}}} for a class of its own, or "
                        f"{{{name}: {{{label}: null}}}} to leave these out"
                    )
        joined = Counter(c for classes in self._maps.values() for c in classes.values())
        self.classes = tuple(c for c in joined if c is not None)
        yield from self._misspelt(where, {c for classes in own.values() for c in classes}, joined)

    def _misspelt(
        self, where: str, known: Set[str], joined: Mapping[str | None, int]
    ) -> Iterator[str]:
        """New classes to which one class alone belongs, a line each."""
        for name, given in self._labels.items():
            for label, target in given.items():
                if target is not None and target not in known and joined[target] == 1:
                    yield (
                        f"{where}.labels.{name}.{label}: given {target!r}, to which nothing else "
                        f"belongs; expected {one_of(target, sorted(known))}, or null"
                    )

    def _join_scales(self, where: str) -> Iterator[str]:
        first: dict[str, str] = {}
        for part in self._parts if "attributes" in self._targets else ():
            for name, scale in scales_of(part.corpus).items():
                if self.scales.setdefault(name, scale) != scale:
                    (low, high), (a, b) = scale, self.scales[name]
                    yield (
                        f"{where}.targets: {name!r} runs from {low:g} to {high:g} in "
                        f"{part.entry.name} and from {a:g} to {b:g} in {first[name]}; expected one "
                        "scale, since no number is converted: leave `attributes` out"
                    )
                first.setdefault(name, part.entry.name)

    def _speaker_problems(self, where: str) -> Iterator[str]:
        known = {
            f"{part.entry.name}/{item.speaker}"
            for part in self._parts
            for item in part.survey.labelled
        }
        for name in self._same:
            if name not in known:
                yield f"{where}.same_speakers: given {name!r}; expected {one_of(name, known)}"
        times = Counter(name for group in self._groups for name in group)
        for name in (each for each in times if times[each] > 1):
            yield f"{where}.same_speakers: given {name!r} {times[name]} times; expected it once"

    def _describe(self) -> None:
        """Say of the whole what is said of the members."""
        sources = {part.entry.name: part.corpus.source for part in self._parts}

        def each(field: str) -> str:
            return "; ".join(f"{name}: {getattr(of, field)}" for name, of in sources.items())

        self.source = Source(  # type: ignore[misc]
            title=f"union of {', '.join(sources)}",
            licence=each("licence"),
            citation=each("citation"),
            obtain=each("obtain"),
        )
        said = [getattr(part.corpus, "disclaimer", None) for part in self._parts]
        self.disclaimer = " ".join(
            f"{part.entry.name}: {text}"
            for part, text in zip(self._parts, said, strict=True)
            if text
        )
        self.scripted = all(getattr(part.corpus, "scripted", False) for part in self._parts)
        self.label_map = {
            f"{name}/{own}": label
            for name, classes in self._maps.items()
            for own, label in classes.items()
        }
        self.policies = {
            f"{part.entry.name} {name}": policy
            for part in self._parts
            for name, policy in getattr(part.corpus, "policies", {}).items()
        }

    def _add(self, survey: Survey, part: Found) -> list[int]:
        """Add a member to a survey; the places of its labelled items that are kept."""
        name, of, places = part.entry.name, part.survey, []
        survey.utterances += [
            replace(u, id=f"{name}/{u.id}", audio=u.audio and f"{name}/{u.audio}")
            for u in of.utterances
        ]
        survey.facts |= {f"{name}/{path}": facts for path, facts in of.facts.items()}
        survey.rejected |= {f"{name}/{id}": reason for id, reason in of.rejected.items()}
        survey.causes |= {f"{name}/{id}": cause for id, cause in of.causes.items()}
        survey.notices |= {f"{name}/{id}": notices for id, notices in of.notices.items()}
        survey.faulty += [f"{name}/{id}" for id in of.faulty]
        survey.warnings += [f"{name}: {line}" for line in of.warnings]
        for place, item in enumerate(of.labelled):
            joined = self._own(name, item)
            left_out = item.label is not None and self._maps[name].get(item.label, "") is None
            lacks = lacks_targets(joined, self._targets)
            if lacks is not None:
                reason = LEFT_OUT.format(item.label) if left_out else lacks
                survey.reject(joined, reason, fault=False)
            else:
                survey.labelled.append(joined)
                places.append(place)
        return places

    def _own(self, name: str, item: Item) -> Item:
        """An item of a member as one of the union."""
        classes = self._maps[name]
        speaker = f"{name}/{item.speaker}"
        label = None if item.label is None else classes.get(item.label, item.label)
        votes, outside = self._mapped(item.votes, classes)
        more = (item.votes_outside or 0.0) + outside
        joined = replace(
            item,
            id=f"{name}/{item.id}",
            label=label,
            speaker=self._same.get(speaker, speaker),
            audio=item.audio and f"{name}/{item.audio}",
            dialogue=item.dialogue and f"{name}/{item.dialogue}",
            sentence=item.sentence and f"{name}/{item.sentence}",
            session=item.session and f"{name}/{item.session}",
            votes=votes,
            votes_outside=None if item.votes is None and item.votes_outside is None else more,
            secondary=self._mapped(item.secondary, classes)[0],
        )
        return chosen(joined, self._targets)

    def _mapped(
        self, counts: Mapping[str, float] | None, classes: ClassMap
    ) -> tuple[dict[str, float] | None, float]:
        """Counts by class of the union, and those of classes that are left out; None of None."""
        found: Counter[str] = Counter()
        outside = 0.0
        for label, count in (counts or {}).items():
            target = classes.get(label, label)
            if target is None:
                outside += count
            else:
                found[target] += count  # type: ignore[assignment]
        return (dict(found) or None), outside


def _joined_splits(
    entry: CorpusEntry, parts: Sequence[Found]
) -> tuple[list[list[tuple[str, ...]]] | None, list[str]]:
    """Splits of each member's labelled items in the union's folds, and what is wrong with them."""
    given = [part.splits for part in parts]
    if any(splits is None for splits in given):
        return None, []
    own = [list(splits or ()) for splits in given]
    counts = [len(splits[0]) if splits else 1 for splits in own]
    folds = max(counts)
    if any(count not in (1, folds) for count in counts):
        named = ", ".join(
            f"{part.entry.name} {count}" for part, count in zip(parts, counts, strict=True)
        )
        return None, [
            f"corpora.{entry.name}: numbers of folds of the members: {named}; expected the same "
            "number, or 1: set `fold` of some members, or a `protocol` for the union, such as "
            "speaker_folds"
        ]
    spread = [[_spread(row, folds) for row in splits] for splits in own]
    if entry.fold is None:
        return spread, []
    if entry.fold >= folds:
        return None, [
            f"corpora.{entry.name}.fold: given {entry.fold}; expected null or a number from 0 to "
            f"{folds - 1}"
        ]
    return [[(row[entry.fold],) for row in splits] for splits in spread], []


def _spread(row: tuple[str, ...], folds: int) -> tuple[str, ...]:
    """Splits in so many folds of an item that has one fold, or as many already."""
    if len(row) == folds or row == (UNLABELLED,):
        return row if len(row) == folds else row * folds
    return (row[0], *["unused" if row[0] == "test" else row[0]] * (folds - 1))


build: CorpusFactory = Union
