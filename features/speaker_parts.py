"""Groups of speakers dealt out to parts of given shares, with genders as even as they go."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence

from features.errors import ParamsError


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
