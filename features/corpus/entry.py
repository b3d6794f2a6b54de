"""Parse and validate an entry of `corpora` in params.yaml."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from features.arguments import one_of, parameter_types, quoted, refuse
from features.corpus.adapter import Corpus, Target
from features.corpus.leaks import LeakKind
from features.corpus.protocols import ProtocolName
from features.corpus.utterance import SHARD_BYTES, SHARD_LIMITS
from features.ranges import Amount, Interval, MinLen, Positive, Seed
from features.settings.plugins import entry_problems, kinds, load, split_entry

PACKAGE = "features.corpora"
SUPPLIED = ("root", "targets", "members")  # keywords of a plug-in that are no options of its own


@dataclass(frozen=True)
class CorpusEntry:
    """An entry of `corpora` in params.yaml.

    Attributes:
        name: Key in params.yaml.
        kind: Plug-in: a module of `features.corpora`.
        protocol: Rule by which splits are made; see `features.corpus.protocols`.
        folds: Number of folds of the protocol `speaker_folds`.
        fold: The only fold to make, from 0; None: all of them.
        split_seed: Seed that orders groups of speakers of equal size.
        allow_leak: Kinds of leak between the splits that are tolerated.
        allow_rejected: Number of unusable utterances that is tolerated; utterances without a label
            do not count.
        follow_links: Whether to read audio through links that lead out of the corpus root.
        shard_seconds: A shard of an audio backbone closes once it holds this many seconds.
        shard_characters: A shard of a text backbone closes once it holds this many characters.
        shard_bytes: A shard closes, too, once its features have about so many bytes.
        targets: What there is to learn of an utterance; one without any of these is left out.
        options: Keywords of the plug-in's constructor.
    """

    name: str
    kind: str
    protocol: ProtocolName = "official"
    folds: Annotated[int, Interval(ge=1, le=1000)] = 5
    fold: Annotated[int, Interval(ge=0, le=999)] | None = None
    split_seed: Seed = 0
    allow_leak: tuple[LeakKind, ...] = ()
    allow_rejected: Amount = 0
    follow_links: bool = False
    shard_seconds: Positive = 3600.0
    shard_characters: Annotated[int, Interval(ge=1, le=1_000_000_000)] = 500_000
    shard_bytes: Annotated[int, Interval(ge=1_000_000, le=1_000_000_000_000)] = SHARD_BYTES
    targets: Annotated[tuple[Target, ...], MinLen(1)] = ("classes",)
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def members(self) -> tuple[CorpusEntry, ...]:
        """Entries of the corpora that a union consists of; none of any other kind."""
        members: tuple[CorpusEntry, ...] = self.options.get("members", ())
        return members

    @property
    def generated(self) -> bool:
        """Whether it needs no root: it makes its own audio, or is a union of other corpora."""
        return bool(getattr(load(PACKAGE, self.kind), "generated", False))

    @property
    def shard_limits(self) -> dict[str, Any]:
        """Settings that close its shards, which its manifest has as well."""
        return {name: getattr(self, name) for name in SHARD_LIMITS}

    def adapter(self, root: Path) -> Corpus:
        """Make the adapter of the corpus below a root."""
        build = load(PACKAGE, self.kind)
        more = {"targets": self.targets} if _offers(build) != ("classes",) else {}
        corpus: Corpus = build(root, **self.options, **more)
        return corpus


def corpus_problems(name: str, mapping: Any, corpora: Mapping[str, Any] | None = None) -> list[str]:
    """Problems with an entry of `corpora`, one line each; arguments as for `corpus_entry`."""
    found = entry_problems(CorpusEntry, PACKAGE, "corpora", name, mapping, skip=SUPPLIED)
    if found:
        return found
    kind, targets = mapping.get("kind", name), mapping.get("targets", ())
    if _joins(kind):
        found = _member_problems(name, mapping["of"], corpora or {})
        if found:
            return found
    offers = _offers(load(PACKAGE, kind))
    lacking = [target for target in targets if target not in offers]
    if lacking:
        return [
            f"corpora.{name}.targets: given {lacking[0]!r}; expected some of {list(offers)}, which "
            f"kind {kind!r} offers"
        ]
    return []


def _offers(build: Any) -> tuple[Target, ...]:
    """What a corpus can yield, as its adapter says."""
    return getattr(build, "offers", ("classes",))


def _joins(kind: str) -> bool:
    """Whether a kind is made of other corpora."""
    return "members" in parameter_types(load(PACKAGE, kind))


def _member_problems(name: str, members: Sequence[str], corpora: Mapping[str, Any]) -> list[str]:
    """What is wrong with the list of a union's members, one line each."""
    where, found = f"corpora.{name}.of", []
    if len(set(members)) < len(members) or len(members) < 2:
        found.append(f"{where}: given {quoted(list(members))}; expected two or more, each once")
    plain = [key for key in corpora if key != name and not _is_union(key, corpora[key])]
    found += [
        f"{where}: given {quoted(member)}; expected {one_of(member, plain)}, an entry of `corpora` "
        "that is no union itself"
        for member in members
        if member not in plain
    ]
    # Reported with the member itself, where all entries are checked.
    wrong = [m for m in members if m in plain and corpus_problems(m, corpora[m])]
    return found + [
        f"{where}: the entry corpora.{member} is wrong: heronry check" for member in wrong
    ]


def _is_union(name: str, mapping: Any) -> bool:
    kind = mapping.get("kind", name) if isinstance(mapping, Mapping) else None
    return kind in kinds(PACKAGE) and _joins(kind)


def corpus_entry(
    name: str, mapping: Mapping[str, Any], corpora: Mapping[str, Any] | None = None
) -> CorpusEntry:
    """Parse an entry; its kind defaults to its name.

    Args:
        name: Its key.
        mapping: The entry.
        corpora: All entries, in which a union finds its members.

    Raises:
        ParamsError: Listing all problems with it.
    """
    refuse(corpus_problems(name, mapping, corpora))
    common, options = split_entry(CorpusEntry, mapping)
    common["allow_leak"] = tuple(common.get("allow_leak", ()))
    common["targets"] = tuple(dict.fromkeys(common.get("targets", ("classes",))))
    kind = mapping.get("kind", name)
    if _joins(kind):
        members = ((member, (corpora or {})[member]) for member in options["of"])
        options["members"] = tuple(corpus_entry(*member) for member in members)
    return CorpusEntry(name, kind=kind, options=options, **common)
