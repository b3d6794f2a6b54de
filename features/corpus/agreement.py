"""Agreement of raters: Krippendorff's alpha, Fleiss' kappa, estimates and ceilings by rater.

Ratings are a long table (`Judgements`) and never a matrix of raters and utterances, which for
thousands of crowd raters would be nearly empty. All functions are sums over its rows.

Sources: Krippendorff, Content Analysis (2004), section 11.3; Fleiss, Psychological Bulletin 76
(1971), page 378; evaluator-weighted estimator (EWE): Grimm and Kroschel, ASRU 2005.

Shapes: M ratings, N utterances, R raters.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

LEAST_ITEMS = 10
"""Utterances that a rater must have in common with others to be judged by them."""


@dataclass(frozen=True)
class Judgements:
    """What raters said, one row a rating. Unknown ratings are absent rows.

    Attributes:
        items: `[M]`, number of the utterance, from 0 to N - 1.
        raters: `[M]`, number of the rater, from 0 to R - 1.
        values: `[M]`, a number on the attribute's scale, or the number of a class.
        n_items: N.
        n_raters: R.
    """

    items: Integers
    raters: Integers
    values: Floats
    n_items: int
    n_raters: int

    def __post_init__(self) -> None:
        if not np.isfinite(self.values).all():
            raise ValueError("a rating is not finite; expected unknown ones to be left out")

    def by_item(self, weights: Floats | None = None) -> Floats:
        """Sum of weights over the ratings of each utterance, `[N]`; None: their number."""
        return np.bincount(self.items, weights, self.n_items).astype(np.float64)

    def by_rater(self, weights: Floats | None = None) -> Floats:
        """Sum of weights over the ratings of each rater, `[R]`; None: their number."""
        return np.bincount(self.raters, weights, self.n_raters).astype(np.float64)

    def where(self, kept: NDArray[np.bool_]) -> Judgements:
        """Some of the ratings; the numbers of utterances and raters stay."""
        return Judgements(
            self.items[kept], self.raters[kept], self.values[kept], self.n_items, self.n_raters
        )

    def others(self) -> Floats:
        """Mean of the other raters of the same utterance, `[M]`; NaN where there is none."""
        others = self.by_item()[self.items] - 1
        sums = self.by_item(self.values)[self.items] - self.values
        return _ratio(sums, others)


def krippendorff_alpha(
    judgements: Judgements, level: Literal["nominal", "ordinal", "interval"]
) -> float:
    """Krippendorff's alpha, 1 - D_o / D_e; utterances with one rating do not count.

    D_o is the mean squared difference of two raters of the same utterance, D_e that of any two
    ratings. With squared differences both are sums of squares, so that no table of all pairs of
    values is needed: those of `ordinal` are differences of mid-ranks, those of `nominal` half the
    squared differences of one-hot vectors.

    Returns:
        NaN where fewer than two values occur.
    """
    pairable = judgements.where(judgements.by_item()[judgements.items] > 1)
    kinds, numbers = np.unique(pairable.values, return_inverse=True)
    if len(kinds) < 2:
        return float("nan")
    if level == "nominal":
        columns = [np.asarray(numbers == k, np.float64) for k in range(len(kinds))]
        scale = 0.5
    else:
        counts = np.bincount(numbers)
        ranks = counts.cumsum() - counts / 2
        values = pairable.values if level == "interval" else ranks[numbers]
        columns, scale = [values - values.mean()], 1.0
    sizes, total = pairable.by_item(), len(pairable.values)
    observed = expected = 0.0
    for column in columns:
        # The sum of (a - b)^2 over ordered pairs of m values is 2 (m sum a^2 - (sum a)^2).
        squares, sums = pairable.by_item(column**2), pairable.by_item(column)
        pairs = 2 * (sizes * squares - sums**2)
        observed += scale * float((pairs / np.maximum(sizes - 1, 1)).sum()) / total
        everywhere = 2 * (total * (column**2).sum() - column.sum() ** 2)
        expected += scale * float(everywhere) / (total * (total - 1))
    return 1 - observed / expected


def fleiss_kappa(judgements: Judgements) -> float:
    """Fleiss' kappa of classes, where every utterance has the same number of ratings.

    Returns:
        NaN where only one class occurs.

    Raises:
        ValueError: If numbers of ratings differ or are below 2.
    """
    sizes = judgements.by_item()
    size = sizes[0] if len(sizes) else 0
    if size < 2 or (sizes != size).any():
        raise ValueError(
            f"{sizes.min(initial=size):.0f} to {sizes.max(initial=0):.0f} ratings an utterance; "
            "Fleiss' kappa needs the same number of each, at least 2; Krippendorff's alpha does not"
        )
    agreed, chance = 0.0, 0.0
    for kind in np.unique(judgements.values):
        chosen = np.asarray(judgements.values == kind, np.float64)
        counts = judgements.by_item(chosen)
        agreed += float((counts * (counts - 1)).sum())
        chance += float(chosen.mean()) ** 2
    observed = agreed / (len(sizes) * size * (size - 1))
    return (observed - chance) / (1 - chance) if chance < 1 else float("nan")


def rater_weights(
    judgements: Judgements,
    *,
    against: Literal["others", "all"] = "others",
    clip: bool = True,
    least: int = LEAST_ITEMS,
) -> Floats:
    """Weights of the evaluator-weighted estimator, `[R]`: how well a rater follows the rest.

    A weight is Pearson's correlation of the rater's ratings with the means of the same utterances.
    Give training rows alone: weights from others would let test ratings shape the targets.

    Args:
        judgements: Ratings of one attribute.
        against: Means of the `others` (as the library audpsychometric), or of `all` raters, which
            hold the rater's own (Grimm and Kroschel).
        clip: Count negative weights as 0; they can take an estimate off the scale.
        least: Utterances in common below which a rater gets the mean weight of the rest.
    """
    shared = judgements.where(judgements.by_item()[judgements.items] > 1)
    means = shared.others()
    if against == "all":
        means = _ratio(shared.by_item(shared.values), shared.by_item())[shared.items]
    weights = _by_rater(shared, means)["pearson"]
    weights[shared.by_rater() < least] = np.nan
    if clip:
        weights = np.maximum(weights, 0.0)
    known = ~np.isnan(weights)
    weights[~known] = weights[known].mean() if known.any() else 1.0
    return weights


def weighted_means(judgements: Judgements, weights: Floats) -> Floats:
    """Estimate of each utterance, `[N]`: the mean of its ratings weighted by rater.

    The plain mean where all its raters have weight 0, NaN without ratings.
    """
    each = weights[judgements.raters]
    sums, total = judgements.by_item(each * judgements.values), judgements.by_item(each)
    plain = _ratio(judgements.by_item(judgements.values), judgements.by_item())
    weighted = np.full(plain.shape, np.nan)
    np.divide(sums, total, out=weighted, where=np.abs(total) > 1e-12)
    return np.where(np.isnan(weighted), plain, weighted)


def rater_ccc(judgements: Judgements, *, least: int = LEAST_ITEMS) -> Floats:
    """Concordance of each rater with the mean of the others, `[R]`: a ceiling for one rater's view.

    CCC with population moments. NaN for a rater with fewer than `least` utterances in common with
    others, and where it is undefined. The mean over raters is `numpy.nanmean`.
    """
    shared = judgements.where(judgements.by_item()[judgements.items] > 1)
    concordance = _by_rater(shared, shared.others())["ccc"]
    concordance[shared.by_rater() < least] = np.nan
    return concordance


def rater_accuracy(judgements: Judgements) -> tuple[int, int, int]:
    """Ratings that agree with the plurality of the other raters of their utterance.

    Returns:
        Hits, comparisons, and ratings without one, since the others tie or there are none.
    """
    kinds, numbers = np.unique(judgements.values, return_inverse=True)
    hits = compared = 0
    # Row by row of utterances in order: counts of classes of one utterance at a time stay small.
    order = np.argsort(judgements.items, kind="stable")
    bounds = np.flatnonzero(np.diff(judgements.items[order])) + 1
    for group in np.split(numbers[order], bounds):
        counts = np.bincount(group, minlength=len(kinds))
        for own in group:
            counts[own] -= 1
            top = np.flatnonzero(counts == counts.max(initial=0))
            if len(group) > 1 and len(top) == 1:
                compared += 1
                hits += int(top[0] == own)
            counts[own] += 1
    return hits, compared, len(numbers) - compared


def rater_normalised(judgements: Judgements, *, least: int = LEAST_ITEMS) -> Floats:
    """Means of ratings from which the habits of raters are removed, `[N]`, on the scale.

    Each rating becomes (r - mean) / sd of its rater (population), and the mean over an utterance
    goes back to the mean and sd of all ratings. Raters with fewer than `least` ratings, or always
    the same, are taken as they are: by mean and sd of all. Give training rows alone.
    """
    count = judgements.by_rater()
    means = _ratio(judgements.by_rater(judgements.values), count)
    centred = judgements.values - means[judgements.raters]
    spreads = np.sqrt(_ratio(judgements.by_rater(centred**2), count))
    mean, spread = judgements.values.mean(), judgements.values.std()
    typical = (count >= least) & (spreads > 1e-9)
    means, spreads = np.where(typical, means, mean), np.where(typical, spreads, spread)
    # Where all ratings are the same, every score is 0.
    below = np.maximum(spreads, 1e-9)
    scores = (judgements.values - means[judgements.raters]) / below[judgements.raters]
    means_of_items = _ratio(judgements.by_item(scores), judgements.by_item())
    return np.asarray(mean + spread * means_of_items)


def _by_rater(judgements: Judgements, means: Floats) -> dict[str, Floats]:
    """CCC and Pearson's correlation of each rater with means of the same utterances, `[R]`."""
    count = judgements.by_rater()
    own, rest = (
        values - _ratio(judgements.by_rater(values), count)[judgements.raters]
        for values in (judgements.values, means)
    )
    apart = _ratio(judgements.by_rater(judgements.values - means), count)
    common = judgements.by_rater(own * rest)
    spread_own, spread_rest = judgements.by_rater(own**2), judgements.by_rater(rest**2)
    return {
        "ccc": _ratio(2 * common, spread_own + spread_rest + count * apart**2),
        "pearson": _ratio(common, np.sqrt(spread_own * spread_rest)),
    }


def _ratio(top: Any, bottom: Any) -> Floats:
    ratio: Floats = np.full(np.shape(top), np.nan)
    np.divide(top, bottom, out=ratio, where=np.asarray(bottom) > 1e-12)
    return ratio
