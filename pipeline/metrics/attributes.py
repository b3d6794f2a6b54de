"""Scores of predicted attributes (arousal, valence, ...) as functions of sums that add up.

Shapes: N items, A attributes, G groups; `...` any leading axes (seeds, folds, draws, attributes).
A predicted value is x, the truth y, both on the corpus's own scale. Of each group `SUMS` are kept;
those of a union of groups are the sum of theirs, so that folds, bootstrap draws and permutations
cost no pass over the items.

All moments are those of the population (ddof 0): Lin's concordance correlation coefficient
(Biometrics 45, 1989, page 255) mixes variances and a covariance, and one sample moment among them
gives other numbers. It is not computed by way of Pearson's r, which a constant side leaves
undefined. NaN stands for what is undefined.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from pipeline.metrics.classes import Floats

SUMS = ("n", "x", "y", "xx", "yy", "xy", "absolute")
"""What is summed over the items of a group, the last axis of `attribute_sums`: 1, x, y, x^2, y^2,
x y and |x - y|, of values from which the middle of the scale is subtracted."""

SCORES = ("ccc", "pearson", "rmse", "mae", "bias", "sd_ratio")
"""Names of `attribute_scores`."""

_CONSTANT = 1e-12
"""Variance up to which values are constant, as a share of their mean square: rounding's."""


def attribute_sums(
    truth: ArrayLike, prediction: ArrayLike, groups: ArrayLike, n_groups: int, middles: ArrayLike
) -> Floats:
    """The sums of each group and attribute.

    Args:
        truth: `[N, A]`; NaN where an item has no value of the attribute, which is left out.
        prediction: `[N, A]`.
        groups: `[N]` integers, the group of each item.
        n_groups: G.
        middles: `[A]`, the middle of each attribute's scale. It is subtracted, since sums of
            squares far from 0 lose the digits of a small variance.

    Returns:
        `[G, A, 7]`, in the order of `SUMS`.

    Raises:
        ValueError: If a truth is infinite, or the prediction of a known one not finite.
    """
    middle = np.asarray(middles, np.float64)
    x = np.asarray(prediction, np.float64) - middle
    y = np.asarray(truth, np.float64) - middle
    known = ~np.isnan(y)
    wrong = known & ~(np.isfinite(x) & np.isfinite(y))
    if wrong.any():
        row, column = np.argwhere(wrong)[0]
        raise ValueError(
            f"item {row}, attribute {column}: prediction {x[row, column] + middle[column]}, truth "
            f"{y[row, column] + middle[column]} is not finite"
        )
    x, y = np.where(known, x, 0.0), np.where(known, y, 0.0)
    terms = np.stack([known, x, y, x * x, y * y, x * y, np.abs(x - y)], axis=-1)
    sums: Floats = np.zeros((n_groups, *terms.shape[1:]))
    np.add.at(sums, np.asarray(groups, np.int64), terms)
    return sums


def attribute_scores(sums: Floats) -> dict[str, Floats]:
    """Scores named in `SCORES`, each `[...]`, from sums `[..., 7]`.

    - `ccc`: 2 Sxy / (Sxx + Syy + n (mean x - mean y)^2) with centred sums. Undefined below two
      items and for equal constants; exactly 0 if one side alone is constant.
    - `pearson`: undefined below two items and if a side is constant.
    - `rmse`, `mae`, `bias` (the mean of x - y) on the scale of the values.
    - `sd_ratio`: standard deviation of x over that of y, undefined for a constant y.
    """
    n, x, y, xx, yy, xy, absolute = np.moveaxis(np.asarray(sums, np.float64), -1, 0)
    some, several = n > 0, n > 1
    count = np.where(some, n, 1.0)
    mean_x, mean_y = x / count, y / count
    # Rounding leaves a constant a variance of either sign.
    spread_x, spread_y = _centred(xx, x * mean_x), _centred(yy, y * mean_y)
    common = np.where((spread_x > 0) & (spread_y > 0), xy - x * mean_y, 0.0)
    apart = count * (mean_x - mean_y) ** 2
    apart = np.where(apart > _CONSTANT * (xx + yy), apart, 0.0)
    product = np.sqrt(spread_x * spread_y)
    squares = np.maximum(xx - 2 * xy + yy, 0.0)
    return {
        "ccc": np.where(several, _ratio(2 * common, spread_x + spread_y + apart), np.nan),
        "pearson": np.where(several, _ratio(common, product), np.nan),
        "rmse": np.where(some, np.sqrt(squares / count), np.nan),
        "mae": np.where(some, absolute / count, np.nan),
        "bias": np.where(some, mean_x - mean_y, np.nan),
        "sd_ratio": np.where(several, np.sqrt(_ratio(spread_x, spread_y)), np.nan),
    }


def _centred(squares: Floats, square_of_sum: Floats) -> Floats:
    """Sum of squared differences from the mean; 0 where that is no more than rounding."""
    centred = squares - square_of_sum
    return np.where(centred > _CONSTANT * squares, centred, 0.0)


def _ratio(top: Floats, bottom: Floats) -> Floats:
    ratio: Floats = np.full(np.broadcast(top, bottom).shape, np.nan)
    np.divide(top, bottom, out=ratio, where=bottom > 0)
    return ratio
