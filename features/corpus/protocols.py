"""Split a corpus into training, validation and test utterances, by protocol.

A protocol gives every utterance one split per fold. All protocols keep speakers apart, except
`official`, which takes the corpus's own splits, and `leave_one_session_out`, which keeps sessions
apart. The `speaker_*` protocols keep dialogues whole as well: they move *groups*, connected
components of speakers who share dialogues. Validation uses speakers, sessions or groups of its own,
never a share of those that are trained on.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

from features.corpus.adapter import Item
from features.corpus.manifest import SPLITS, UNLABELLED, USED
from features.errors import ManifestError, ParamsError

ProtocolName = Literal[
    "official", "speaker_split", "speaker_folds", "leave_one_speaker_out", "leave_one_session_out"
]
PROTOCOLS: tuple[str, ...] = get_args(ProtocolName)
SHARES = (0.6, 0.2, 0.2)  # of the utterances, by split, under `speaker_split`
MIN_PARTS = 3  # at least one each for training, validation and test


def assign(
    items: Sequence[Item], *, protocol: str, folds: int, seed: int = 0, fold: int | None = None
) -> list[tuple[str, ...]]:
    """Assign a split to each item in each fold.

    Args:
        items: Labelled utterances.
        protocol: `official`: the items' own splits, one fold. `speaker_split`: groups of speakers,
            about 60/20/20 by utterances with genders as even as possible, one fold.
            `speaker_folds`: `folds` parts of near-equal size; fold j tests on part j, validates on
            part j + 1 and trains on the others. `leave_one_session_out`: the same with each
            session as a part, in natural order of their names. `leave_one_speaker_out`: the same
            with speakers; for one who shares dialogues with others, the next of those validates,
            so that no side of a dialogue between two is trained on while the other is tested.
        folds: Number of folds of `speaker_folds`; the other protocols ignore it.
        seed: Seed that orders groups of equal size.
        fold: The only fold to return; None: all of them.

    Returns:
        For each item a tuple of splits, one per fold.

    Raises:
        ParamsError: If the protocol is unknown, or `folds` or `fold` does not fit the corpus.
        ManifestError: If the items lack what the protocol needs.
    """
    if any(item.split == UNLABELLED for item in items):
        return _beside_unlabelled(items, protocol=protocol, folds=folds, seed=seed, fold=fold)
    splits = _all_folds(items, protocol, folds, seed)
    if fold is None:
        return splits
    count = len(splits[0])
    if not 0 <= fold < count:
        raise ParamsError(
            f"fold {fold} of a protocol of {count} here; expected null, for all of them, or a "
            f"number from 0 to {count - 1}: set `fold` of the corpus"
        )
    return [(row[fold],) for row in splits]


def _beside_unlabelled(
    items: Sequence[Item], *, protocol: str, folds: int, seed: int, fold: int | None
) -> list[tuple[str, ...]]:
    """Splits of the other items, and `unlabelled` in every fold for those that are never scored."""
    others = [item for item in items if item.split != UNLABELLED]
    if not others:
        raise ManifestError(
            f"all {len(items)} utterances are {UNLABELLED}; expected some to train and test on"
        )
    found = iter(splits := assign(others, protocol=protocol, folds=folds, seed=seed, fold=fold))
    none = (UNLABELLED,) * len(splits[0])
    return [none if item.split == UNLABELLED else next(found) for item in items]


def _all_folds(
    items: Sequence[Item], protocol: str, folds: int, seed: int
) -> list[tuple[str, ...]]:
    if protocol == "official":
        return _official(items)
    if protocol == "speaker_split":
        names = _groups(items)
        parts = _parted(items, names, SHARES, seed)
        return [(USED[parts[name]],) for name in names]
    if protocol == "speaker_folds":
        names = _groups(items)
        _check_parts(folds, "folds", "folds: 3 or more")
        parts = _parted(items, names, [1 / folds] * folds, seed)
        return _rotated([parts[name] for name in names], folds)
    if protocol == "leave_one_speaker_out":
        return _leave_one_out(items, "speaker", lambda item: item.speaker)
    if protocol == "leave_one_session_out":
        return _leave_one_out(items, "session", lambda item: item.session)
    raise ParamsError(f"unknown protocol {protocol!r}; expected one of {list(PROTOCOLS)}")


def _official(items: Sequence[Item]) -> list[tuple[str, ...]]:
    lacking = [item.id for item in items if item.split not in SPLITS]
    if lacking:
        raise ManifestError(
            f"protocol official: {len(lacking)} of {len(items)} utterances have no split of their "
            f"own, such as {lacking[:5]}; expected {SPLITS} for each: choose another protocol, "
            f"one of {list(PROTOCOLS[1:])}, or fill in the splits"
        )
    empty = [split for split in USED if all(item.split != split for item in items)]
    if empty:
        raise ManifestError(
            f"protocol official: no utterance is in {' nor '.join(empty)}; expected some in each "
            f"of {USED}: choose another protocol, one of {list(PROTOCOLS[1:])}"
        )
    return [(str(item.split),) for item in items]


def _leave_one_out(
    items: Sequence[Item], what: str, key: Callable[[Item], str | None]
) -> list[tuple[str, ...]]:
    lacking = [item.id for item in items if not key(item)]
    if lacking:
        raise ManifestError(
            f"protocol leave_one_{what}_out: {len(lacking)} of {len(items)} utterances have no "
            f"{what}, such as {lacking[:5]}; expected one for each: choose another protocol"
        )
    names = sorted({str(key(item)) for item in items}, key=_natural)
    _check_parts(len(names), f"{what}s", "another protocol, or more of the corpus")
    validates = _next_of(names, _companions(items) if what == "speaker" else {})
    return [
        tuple(
            "test" if name == tested else "valid" if name == validates[tested] else "train"
            for tested in names
        )
        for name in (str(key(item)) for item in items)
    ]


def _companions(items: Sequence[Item]) -> dict[str, str]:
    """Group by speaker, of the speakers who share a dialogue with another."""
    group = dict(zip((item.speaker for item in items), _groups(items), strict=True))
    sizes = Counter(group.values())
    return {speaker: name for speaker, name in group.items() if sizes[name] > 1}


def _next_of(names: Sequence[str], group: Mapping[str, str]) -> dict[str, str]:
    """The name after each name within its group, cyclically; names without a group form one."""
    circles: dict[str | None, list[str]] = {}
    for name in names:
        circles.setdefault(group.get(name), []).append(name)
    # A group of one has no other member: the next of all names follows.
    following = dict(zip(names, [*names[1:], names[0]], strict=True))
    for circle in circles.values():
        if len(circle) > 1:
            following |= zip(circle, [*circle[1:], circle[0]], strict=True)
    return following


def _rotated(parts: Sequence[int], count: int) -> list[tuple[str, ...]]:
    # By the offset of a part from the fold: 0 tests, 1 validates, the others train.
    split = ("test", "valid", *["train"] * (count - 2))
    return [tuple(split[(part - fold) % count] for fold in range(count)) for part in parts]


def _groups(items: Sequence[Item]) -> list[str]:
    """Name of each item's group, by union-find: its alphabetically first speaker."""
    parent = {item.speaker: item.speaker for item in items}

    def find(speaker: str) -> str:
        while parent[speaker] != speaker:
            parent[speaker] = parent[parent[speaker]]  # path halving
            speaker = parent[speaker]
        return speaker

    first: dict[str, str] = {}
    for item in items:
        if item.dialogue is not None:
            one, other = find(first.setdefault(item.dialogue, item.speaker)), find(item.speaker)
            # The smaller name becomes the root: groups are named after their first speaker.
            parent[max(one, other)] = min(one, other)
    return [find(item.speaker) for item in items]


def _parted(
    items: Sequence[Item], names: Sequence[str], shares: Sequence[float], seed: int
) -> dict[str, int]:
    """Part of each group, by its name."""
    sizes: dict[str, Counter[str]] = {name: Counter() for name in names}
    for item, name in zip(items, names, strict=True):
        sizes[name].update(["", f"gender {item.gender}"] if item.gender else [""])
    _check_parts(len(sizes), "groups of speakers", "another protocol, or more of the corpus")
    return partition(sizes, shares, seed)


def _check_parts(count: int, what: str, remedy: str) -> None:
    if count < MIN_PARTS:
        raise ParamsError(
            f"{count} {what}; expected at least {MIN_PARTS}, to train, validate and test on "
            f"different speakers: use {remedy}"
        )


def _natural(name: str) -> list[Any]:
    """Sort key under which `actor_2` comes before `actor_10`."""
    # Tuples of one shape, so that numbers and texts are never compared with each other.
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in re.split(r"(\d+)", name)]


def partition(
    sizes: Mapping[str, Counter[str]], shares: Sequence[float], seed: int
) -> dict[str, int]:
    """Distribute groups of speakers to parts of given shares, with genders as even as possible.

    Greedy, largest group first, then single moves while they bring the parts nearer to their
    shares.

    Args:
        sizes: Number of utterances of each group: all of them under "", and by gender.
        shares: Share of the utterances that each part should hold.
        seed: Seed that orders groups of equal size.

    Returns:
        Number of the part by group.

    Raises:
        ParamsError: If there are more parts than groups.
    """
    if len(sizes) < len(shares):
        raise ParamsError(
            f"{len(shares)} folds of {len(sizes)} groups of speakers who share no dialogue; "
            f"expected at most as many folds as groups: set folds to {len(sizes)} or fewer"
        )
    ordered = sorted(sizes, key=lambda name: (-sizes[name][""], _draw(seed, name)))
    balance = _Balance(sizes, shares)
    for name in ordered:
        balance.place(name)
    # A part that stayed empty takes the smallest group of the part with most groups.
    for part in set(range(len(shares))) - set(balance.parts.values()):
        crowded = Counter(balance.parts.values()).most_common(1)[0][0]
        smallest = next(name for name in reversed(ordered) if balance.parts[name] == crowded)
        balance.move(smallest, part)
    # `sum`, not `any`: every group gets its turn.
    # Ends, as each move lowers the distance and the number of partitions is finite.
    while sum(balance.place(name) for name in ordered):
        pass
    return balance.parts


class _Balance:
    """Groups in parts, and the distance of the parts from their shares.

    The distance is chi-square: (n - t)^2 / t, with n the utterances of a part and t its share of
    the total, summed over parts, and over all utterances and those of each gender. Adding x
    utterances to a part lowers it by ((n - t)^2 - (n + x - t)^2) / t = (2 (t - n) x - x^2) / t.
    """

    def __init__(self, sizes: Mapping[str, Counter[str]], shares: Sequence[float]) -> None:
        self.parts: dict[str, int] = {}
        self._sizes, self._shares = sizes, shares
        self._total: Counter[str] = sum(sizes.values(), Counter())
        self._loads: list[Counter[str]] = [Counter() for _ in shares]

    def move(self, name: str, part: int) -> None:
        """Move a group to a part."""
        if name in self.parts:
            self._loads[self.parts[name]] -= self._sizes[name]
        self._loads[part] += self._sizes[name]
        self.parts[name] = part

    def place(self, name: str) -> bool:
        """Move a group to where the distance falls most; False if it stays where it is.

        A group that is alone in its part stays: no part may become empty.
        """
        before = self.parts.get(name)
        if before is not None and list(self.parts.values()).count(before) == 1:
            return False
        gains = [self._gain(name, part) for part in range(len(self._shares))]
        best = gains.index(max(gains))
        # A gain by rounding alone could move groups to and fro for ever.
        if before is not None and gains[best] - gains[before] < 1e-9:
            return False
        self.move(name, best)
        return True

    def _gain(self, name: str, part: int) -> float:
        fall = 0.0
        for key, size in self._sizes[name].items():
            target = self._shares[part] * self._total[key]
            others = self._loads[part][key] - (size if self.parts.get(name) == part else 0)
            fall += (2 * (target - others) * size - size**2) / target
        return fall


def _draw(seed: int, name: str) -> str:
    return hashlib.sha256(f"{seed}:{name}".encode()).hexdigest()
