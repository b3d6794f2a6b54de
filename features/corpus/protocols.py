"""Protocols: which utterances train, validate and test a model in each fold.

A protocol gives every utterance one split per fold. Apart from `official`, which takes the corpus's
own, and `leave_one_session_out`, which keeps sessions apart, all of them keep speakers apart. The
`speaker_*` ones keep dialogues whole as well: what they move is a *group*, a connected component of
speakers who share dialogues. What validates is always a speaker, session or group of its own, never
a share of those that are trained on.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, get_args

from features.corpus.adapter import Item
from features.corpus.manifest import SPLITS
from features.errors import ManifestError, ParamsError


def partition(
    sizes: Mapping[str, Counter[str]], shares: Sequence[float], seed: int
) -> dict[str, int]:
    """Part of each group: largest first to where it helps most, then moved while that helps.

    Args:
        sizes: Utterances of each group: all of them under "", and those of each gender.
        shares: Of the utterances, by part.
        seed: Decides between groups of the same size.

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
    for part in set(range(len(shares))) - set(balance.parts.values()):
        crowded = Counter(balance.parts.values()).most_common(1)[0][0]
        smallest = next(name for name in reversed(ordered) if balance.parts[name] == crowded)
        balance.move(smallest, part)
    while sum(balance.place(name) for name in ordered):
        pass
    return balance.parts


class _Balance:
    """Groups in parts, and how near the parts are to their shares.

    The distance is chi-square: (n - t)^2 / t, with n the utterances of a part and t its share of
    the total, summed over all utterances and those of each gender. Adding x to a part lowers it by
    (2 (t - n) x - x^2) / t.
    """

    def __init__(self, sizes: Mapping[str, Counter[str]], shares: Sequence[float]) -> None:
        self.parts: dict[str, int] = {}
        self._sizes, self._shares = sizes, shares
        self._total: Counter[str] = sum(sizes.values(), Counter())
        self._loads: list[Counter[str]] = [Counter() for _ in shares]

    def move(self, name: str, part: int) -> None:
        """Put a group into a part, out of the one it was in."""
        if name in self.parts:
            self._loads[self.parts[name]] -= self._sizes[name]
        self._loads[part] += self._sizes[name]
        self.parts[name] = part

    def place(self, name: str) -> bool:
        """Put a group where the distance falls most; False if it stays, or would leave a hole."""
        before = self.parts.get(name)
        if before is not None and list(self.parts.values()).count(before) == 1:
            return False
        gains = [self._gain(name, part) for part in range(len(self._shares))]
        best = gains.index(max(gains))
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


ProtocolName = Literal[
    "official", "speaker_split", "speaker_folds", "leave_one_speaker_out", "leave_one_session_out"
]
PROTOCOLS: tuple[str, ...] = get_args(ProtocolName)
USED = ("train", "valid", "test")
SHARES = (0.6, 0.2, 0.2)  # of the utterances, for `speaker_split`
MIN_PARTS = 3  # one to train on, one to validate on, one to test on


def assign(
    items: Sequence[Item], *, protocol: str, folds: int, seed: int = 0
) -> list[tuple[str, ...]]:
    """Splits of each item, one per fold, in the order of `items`.

    Args:
        items: Labelled utterances.
        protocol: `official`: the items' own splits, one fold. `speaker_split`: groups of speakers,
            about 60/20/20 by utterances with genders as even as they go, one fold.
            `speaker_folds`: `folds` parts of near-equal size; fold j tests on part j, validates on
            part j + 1 and trains on the others. `leave_one_session_out`: the same with each
            session as a part, in natural order of their names. `leave_one_speaker_out`: the same
            with speakers; one who shares dialogues with others is validated by the next of those,
            so that of a dialogue between two nothing is trained on.
        folds: Number of folds of `speaker_folds`; the others know their own.
        seed: Decides between groups of the same size.

    Raises:
        ParamsError: If the protocol is unknown or `folds` does not fit the corpus.
        ManifestError: If the items lack what the protocol needs.
    """
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


def only_fold(splits: Sequence[tuple[str, ...]], fold: int | None) -> list[tuple[str, ...]]:
    """The splits of one fold alone, as its only one; None: all folds.

    >>> only_fold([("test", "train"), ("train", "test")], 1)
    [('train',), ('test',)]

    Raises:
        ParamsError: If there is no such fold.
    """
    if fold is None:
        return list(splits)
    count = len(splits[0])
    if not 0 <= fold < count:
        raise ParamsError(
            f"fold {fold} of a protocol of {count} here; expected null, for all of them, or a "
            f"number from 0 to {count - 1}: set `fold` of the corpus"
        )
    return [(row[fold],) for row in splits]


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
    """Group by speaker, of those who are not alone in theirs."""
    group = dict(zip((item.speaker for item in items), _groups(items), strict=True))
    sizes = Counter(group.values())
    return {speaker: name for speaker, name in group.items() if sizes[name] > 1}


def _next_of(names: Sequence[str], group: Mapping[str, str]) -> dict[str, str]:
    """The next of each name within its group, in a circle; those without one are a group."""
    circles: dict[str | None, list[str]] = {}
    for name in names:
        circles.setdefault(group.get(name), []).append(name)
    following = dict(zip(names, [*names[1:], names[0]], strict=True))
    for circle in circles.values():
        if len(circle) > 1:
            following |= zip(circle, [*circle[1:], circle[0]], strict=True)
    return following


def _rotated(parts: Sequence[int], count: int) -> list[tuple[str, ...]]:
    # offset of the part from the fold: 0 tests, 1 validates, the others train
    split = ("test", "valid", *["train"] * (count - 2))
    return [tuple(split[(part - fold) % count] for fold in range(count)) for part in parts]


def _groups(items: Sequence[Item]) -> list[str]:
    """Name of each item's group: the first of the speakers joined by dialogues."""
    parent = {item.speaker: item.speaker for item in items}

    def find(speaker: str) -> str:
        while parent[speaker] != speaker:
            parent[speaker] = parent[parent[speaker]]
            speaker = parent[speaker]
        return speaker

    first: dict[str, str] = {}
    for item in items:
        if item.dialogue is not None:
            one, other = find(first.setdefault(item.dialogue, item.speaker)), find(item.speaker)
            parent[max(one, other)] = min(one, other)
    return [find(item.speaker) for item in items]


def _sizes(items: Sequence[Item], names: Sequence[str]) -> dict[str, Counter[str]]:
    """Utterances of each group: all of them under "", and those of each gender under its name."""
    sizes: dict[str, Counter[str]] = {name: Counter() for name in names}
    for item, name in zip(items, names, strict=True):
        sizes[name].update(["", f"gender {item.gender}"] if item.gender else [""])
    return sizes


def _parted(
    items: Sequence[Item], names: Sequence[str], shares: Sequence[float], seed: int
) -> dict[str, int]:
    sizes = _sizes(items, names)
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
    return [(0, int(p), "") if p.isdecimal() else (1, 0, p) for p in re.split(r"(\d+)", name)]
