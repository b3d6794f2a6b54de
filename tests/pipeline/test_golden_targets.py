"""Golden numbers of targets beyond one class: metrics, losses and agreement, 41 cases.

They come from audmetric, audpsychometric, krippendorff, scipy, scikit-learn and statsmodels, with
gradients by complex steps (`tests/data/golden/targets.json`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from features.corpus.agreement import (
    Judgements,
    fleiss_kappa,
    krippendorff_alpha,
    rater_accuracy,
    rater_ccc,
    rater_normalised,
    rater_weights,
    weighted_means,
)
from pipeline.compare.significance import permutation_test
from pipeline.metrics.attributes import attribute_scores, attribute_sums
from pipeline.metrics.votes import (
    multilabel_counts,
    multilabel_f1,
    multilabel_macro_f1,
    named,
    normalised_entropy,
    plurality,
    vote_scores,
)
from pipeline.model.losses import attributes as attribute_losses
from pipeline.model.losses import votes as vote_losses
from pipeline.model.losses.classes import balanced_weights, class_weights
from tests.support.models.golden import golden

CASES = golden("targets.json")["cases"]
Array = NDArray[np.float64]
Inputs = dict[str, Any]


def floats(values: Any) -> Array:
    """Nested lists with null for NaN, or a tensor."""
    return np.asarray(values, dtype=float)


def tensor(values: Any) -> torch.Tensor:
    return torch.tensor(floats(values), dtype=torch.float64)


def scores(truth: Any, prediction: Any, middle: float = 4.0) -> dict[str, float]:
    """All scores of one attribute over all items."""
    y, x = floats(truth), floats(prediction)
    sums = attribute_sums(y[:, None], x[:, None], np.zeros(len(y), int), 1, [middle])[0, 0]
    return {name: float(value) for name, value in attribute_scores(sums).items()}


def ccc(inputs: Inputs) -> float:
    if None in inputs["truth"]:
        # Unknown truth is left out; what must be refused is a number that is no number.
        return scores(np.where(np.isnan(floats(inputs["truth"])), np.inf, 0), inputs["prediction"])[
            "ccc"
        ]
    return scores(inputs["truth"], inputs["prediction"])["ccc"]


def regression_metrics(inputs: Inputs) -> dict[str, float]:
    found = scores(**inputs)
    return found | {"bias_correction": found["ccc"] / found["pearson"]}


def other_conventions(inputs: Inputs) -> dict[str, float]:
    """The convention that is ours; the case's other numbers are what it must not give."""
    return {"population": ccc(inputs)}


def known(inputs: Inputs) -> dict[str, float]:
    items = int((~np.isnan(floats(inputs["truth"]))).sum())
    return {"ccc": scores(inputs["truth"], inputs["prediction"])["ccc"], "items": items}


def scaled(inputs: Inputs) -> dict[str, Any]:
    low, high = inputs["low"], inputs["high"]
    truth, prediction = floats(inputs["truth"]), floats(inputs["prediction"])
    unit, other = (truth - low) / (high - low), (prediction - low) / (high - low)
    return {
        "unit": scores(unit, other, 0.5)["ccc"],
        "symmetric": scores(2 * unit - 1, 2 * other - 1, 0.0)["ccc"],
        "truth_unit": unit,
        "truth_symmetric": 2 * unit - 1,
    }


def cluster_draws(inputs: Inputs) -> dict[str, Any]:
    truth, prediction = floats(inputs["truth"])[:, None], floats(inputs["prediction"])[:, None]
    plain = attribute_sums(truth, prediction, inputs["cluster"], 3, [0.0])
    sums = attribute_sums(truth, prediction, inputs["cluster"], 3, [4.0])
    drawn = np.einsum("dc,cas->das", floats(inputs["draws"]), sums)
    return {"moments": plain[:, 0, :6], "ccc": attribute_scores(drawn)["ccc"][:, 0]}


def folds(inputs: Inputs) -> dict[str, Any]:
    by_fold = [
        scores(*pair)["ccc"] for pair in zip(inputs["truth"], inputs["prediction"], strict=True)
    ]
    pooled = scores(np.ravel(inputs["truth"]), np.ravel(inputs["prediction"]))["ccc"]
    return {"pooled": pooled, "by_fold": by_fold, "fold_mean": np.mean(by_fold)}


def train_mean(inputs: Inputs) -> dict[str, Any]:
    truth = floats(inputs["truth"])
    prediction = np.repeat(floats(inputs["train_mean"])[:, None], truth.shape[1], axis=1)
    found = folds({"truth": truth, "prediction": prediction})
    rmse = scores(truth.ravel(), prediction.ravel())["rmse"]
    return {"pooled": found["pooled"], "by_fold": found["by_fold"], "rmse": rmse}


def ccc_loss(inputs: Inputs) -> dict[str, Any]:
    predictions = tensor(inputs["prediction"]).requires_grad_()
    targets, eps = tensor(inputs["target"]), inputs["eps"]
    terms = attribute_losses.ccc_terms(predictions, targets, eps)
    # A batch of one row is the trainer's to skip; the term itself is 1, with gradient 0.
    enough = bool(attribute_losses.learnable("ccc", targets).any())
    loss = attribute_losses.ccc(predictions, targets, eps) if enough else terms.mean()
    torch.autograd.backward(loss)
    return {
        "by_attribute": terms.detach(),
        "loss": loss.detach(),
        "gradient": predictions.grad,
    }


def ccc_of_parts(inputs: Inputs) -> dict[str, Any]:
    x, y, cut = (tensor(inputs["prediction"]), tensor(inputs["target"]), inputs["cut"])
    whole, *parts = (
        float(attribute_losses.ccc(x[where, None], y[where, None], 0.0))
        for where in (slice(None), slice(cut), slice(cut, None))
    )
    return {"whole": whole, "parts": parts, "mean_of_parts": np.mean(parts)}


def by_row(loss: Callable[..., torch.Tensor], inputs: Inputs, **more: Any) -> list[float]:
    logits, shares = tensor(inputs["logits"]), tensor(inputs["target"])
    pairs = zip(logits, shares, strict=True)
    return [float(loss(z[None], t[None], **more)) for z, t in pairs]


def soft_losses(inputs: Inputs) -> dict[str, Any]:
    votes = floats(inputs["votes"])
    inputs = inputs | {"target": (votes / votes.sum(1, keepdims=True)).tolist()}
    shares = floats(inputs["target"])
    logits = tensor(inputs["logits"]).requires_grad_()
    torch.autograd.backward(vote_losses.soft_ce(logits, tensor(shares)))
    probabilities = logits.detach().softmax(1).numpy()
    with np.errstate(divide="ignore"):
        reversed_kl = vote_scores(probabilities, shares)["kld"]
    soft, kl = by_row(vote_losses.soft_ce, inputs), by_row(vote_losses.kl, inputs)
    return {
        "target": shares,
        "soft_ce": soft,
        "entropy": np.subtract(soft, kl),
        "kl_target_from_prediction": kl,
        "kl_prediction_from_target": np.where(np.isfinite(reversed_kl), reversed_kl, np.nan),
        "mean_soft_ce": np.mean(soft),
        "mean_kl": float(vote_losses.kl(logits.detach(), tensor(shares))),
        "gradient": logits.grad,
    }


def smoothed(inputs: Inputs) -> dict[str, Any]:
    votes = tensor(inputs["votes"])
    shares = votes / votes.sum(1, keepdim=True)
    uniform = vote_losses.smoothed(shares, inputs["uniform"])
    other = inputs["emo_superb"] * shares.shape[1] / (shares.shape[1] - 1)
    soft = next(case for case in CASES if case["id"] == "soft_ce_kl")["inputs"]
    return {
        "uniform": uniform,
        "emo_superb": vote_losses.smoothed(shares, other),
        "soft_ce_uniform": by_row(vote_losses.soft_ce, soft | {"target": uniform.tolist()}),
    }


def balanced(inputs: Inputs) -> dict[str, Any]:
    counts = torch.tensor(inputs["counts"])
    total = int(counts.sum())
    weights = [balanced_weights(counts, total), balanced_weights(counts, total, inputs["betas"][1])]
    return {"weights": torch.stack(weights), "inverse_frequency": class_weights(counts).double()}


def balanced_soft_ce(inputs: Inputs) -> dict[str, Any]:
    arguments = [tensor(inputs[name]) for name in ("logits", "target", "weights")]
    own = arguments[1] @ arguments[2]
    balanced = float(vote_losses.balanced_soft_ce(*arguments))
    return {
        "item_weights": own,
        "emo_superb_mean": balanced,
        "per_class_weighted_mean": float(vote_losses.weighted(*arguments)),
        "normalised_by_item_weights": balanced * len(own) / float(own.sum()),
    }


def logit_adjusted(inputs: Inputs) -> dict[str, Any]:
    rows = by_row(
        vote_losses.logit_adjusted, inputs, prior=tensor(inputs["prior"]), tau=inputs["tau"]
    )
    return {"loss": rows, "mean": np.mean(rows)}


def focal(inputs: Inputs) -> dict[str, Any]:
    rows = by_row(vote_losses.focal, inputs, alpha=inputs["alpha"], gamma=inputs["gamma"])
    return {"loss": rows, "mean": np.mean(rows)}


def multilabel_bce(inputs: Inputs) -> dict[str, Any]:
    logits, shares = tensor(inputs["logits"]), tensor(inputs["target"])
    binary = vote_losses.named(shares).double()
    # Of one class at a time: K copies of it have the same threshold, and its mean.
    by_class = [
        torch.nn.functional.binary_cross_entropy_with_logits(logits[:, k], binary[:, k])
        for k in range(shares.shape[1])
    ]
    return {
        "binary": binary,
        "mean": float(vote_losses.multilabel_bce(logits, shares)),
        "by_class": torch.stack(by_class),
    }


def uncertainty(inputs: Inputs) -> dict[str, Any]:
    losses = tensor(inputs["losses"])
    s = tensor(inputs["log_variances"]).requires_grad_()
    total = (torch.exp(-s) * losses + s / 2).sum()
    torch.autograd.backward(total)
    return {"total": total.detach(), "gradient_log_variances": s.grad}


def distributions(inputs: Inputs) -> dict[str, Any]:
    found = vote_scores(inputs["target"], inputs["prediction"])
    return {
        "jsd_bits": found["jsd"],
        "jsd_nats": found["jsd"] * math.log(2),
        "total_variation": found["total_variation"],
        "cosine": found["cosine"],
        "kld_nats": np.where(np.isfinite(found["kld"]), found["kld"], np.nan),
        "brier": found["brier_soft"],
    }


def votes_to_labels(inputs: Inputs) -> dict[str, Any]:
    votes = floats(inputs["votes"])
    total = votes.sum(1, keepdims=True)
    some = total[:, 0] > 0
    shares = np.divide(votes, total, out=np.full(votes.shape, np.nan), where=total > 0)
    top = np.full(len(votes), np.nan)
    top[some] = plurality(shares[some])
    top[top < 0] = np.nan
    return {
        "plurality": top,
        "majority": np.where(shares.max(1) > 0.5, top, np.nan),
        "normalised_entropy": np.where(some, normalised_entropy(shares), np.nan),
        "agreement": shares.max(1),
    }


def multilabel(inputs: Inputs) -> dict[str, Any]:
    truth, guess = named(inputs["target"]), named(inputs["prediction"])
    counts = multilabel_counts(truth, guess, np.zeros(len(truth), int), 1)[0]
    return {
        "target_binary": truth,
        "prediction_binary": guess,
        "by_class": multilabel_f1(counts),
        "macro_f1": multilabel_macro_f1(counts),
        "micro_f1": multilabel_f1(counts.sum(0)),
        "exact_match": np.mean((truth == guess).all(1)),
        "hamming_loss": np.mean(truth != guess),
    }


def judgements(table: Any, *, raters_in_rows: bool) -> Judgements:
    """A long table of the ratings of a matrix that are known."""
    matrix = floats(table).T if raters_in_rows else floats(table)
    items, raters = np.nonzero(~np.isnan(matrix))
    return Judgements(items, raters, matrix[items, raters], *matrix.shape)


def alpha(inputs: Inputs) -> dict[str, float]:
    whole, gaps = (
        judgements(inputs[name], raters_in_rows=True) for name in ("ratings", "ratings_missing")
    )
    return {
        "nominal_complete": krippendorff_alpha(whole, "nominal"),
        "nominal_missing": krippendorff_alpha(gaps, "nominal"),
        "interval_missing": krippendorff_alpha(gaps, "interval"),
        "ordinal_missing": krippendorff_alpha(gaps, "ordinal"),
    }


def ewe(inputs: Inputs) -> dict[str, Any]:
    table = judgements(inputs["ratings"], raters_in_rows=False)
    others = rater_weights(table, clip=False, least=2)
    everybody = rater_weights(table, against="all", clip=False, least=2)
    clipped = rater_weights(table, least=2)
    return {
        "weights_others": others,
        "ewe_others": weighted_means(table, others),
        "weights_all": everybody,
        "ewe_all": weighted_means(table, everybody),
        "ewe_others_clipped": weighted_means(table, clipped),
        "mean": weighted_means(table, np.ones(table.n_raters)),
    }


def ceiling_ccc(inputs: Inputs) -> dict[str, Any]:
    by_rater = rater_ccc(judgements(inputs["ratings"], raters_in_rows=False), least=2)
    return {"by_rater": by_rater, "mean": by_rater.mean()}


def ceiling_accuracy(inputs: Inputs) -> dict[str, Any]:
    hits, compared, _ = rater_accuracy(judgements(inputs["ratings"], raters_in_rows=True))
    return {"hits": hits, "comparisons": compared, "accuracy": hits / compared}


def rater_z(inputs: Inputs) -> dict[str, Any]:
    table = judgements(inputs["ratings"], raters_in_rows=False)
    back = rater_normalised(table, least=2)
    return {"z_mean": (back - table.values.mean()) / table.values.std(), "back": back}


def permutation(inputs: Inputs) -> dict[str, Any]:
    truth, clusters = floats(inputs["truth"])[:, None], inputs["cluster"]
    first, second = (
        attribute_sums(truth, floats(inputs[name])[:, None], clusters, 5, [4.0])
        for name in ("first", "second")
    )

    # One seed: units are [n, 1, A, 7].
    found = permutation_test(
        (first[:, None], second[:, None]),
        lambda sums: {"ccc": attribute_scores(sums)["ccc"][..., 0].mean(-1)},
        "speaker",
    )
    sides = [float(attribute_scores(side.sum(0))["ccc"][0]) for side in (first, second)]
    ways = found.permutations
    return {
        "difference": sides[1] - sides[0],
        "extreme": round(found.p["ccc"] * ways),
        "ways": ways,
        "p": found.p["ccc"],
    }


FUNCTIONS: dict[str, Callable[[Inputs], Any]] = {
    "ccc": ccc,
    "regression_metrics": regression_metrics,
    "ccc_other_conventions": other_conventions,
    "ccc_of_known": known,
    "ccc_after_scaling": scaled,
    "ccc_of_cluster_draws": cluster_draws,
    "ccc_pooled_and_by_fold": folds,
    "train_mean_baseline": train_mean,
    "ccc_loss": ccc_loss,
    "ccc_loss_of_parts": ccc_of_parts,
    "soft_losses": soft_losses,
    "smoothed_targets": smoothed,
    "class_balanced_weights": balanced,
    "class_balanced_soft_ce": balanced_soft_ce,
    "logit_adjusted_ce": logit_adjusted,
    "focal_soft": focal,
    "multilabel_bce": multilabel_bce,
    "uncertainty_weighting": uncertainty,
    "distribution_metrics": distributions,
    "votes_to_labels": votes_to_labels,
    "multilabel_f1": multilabel,
    "krippendorff_alpha": alpha,
    "krippendorff_alpha_one_value": lambda inputs: krippendorff_alpha(
        judgements(inputs["ratings"], raters_in_rows=True), "nominal"
    ),
    "fleiss_kappa": lambda inputs: fleiss_kappa(judgements(inputs["ratings"], raters_in_rows=True)),
    "ewe": ewe,
    "leave_one_rater_out_ccc": ceiling_ccc,
    "leave_one_rater_out_accuracy": ceiling_accuracy,
    "rater_z": rater_z,
    "permutation_test_ccc": permutation,
}


def test_all_cases_are_there() -> None:
    assert len(CASES) == 41
    assert {case["function"] for case in CASES} == set(FUNCTIONS)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case["id"])
def test_golden_number(case: dict[str, Any]) -> None:
    function, expected = FUNCTIONS[case["function"]], case["expected"]
    if isinstance(expected, dict) and "error" in expected:
        with pytest.raises(ValueError, match=expected["error"]):
            function(case["inputs"])
        return
    found = function(case["inputs"])
    if not isinstance(expected, dict):
        found, expected = {"": found}, {"": expected}
    for name in found:
        wanted = floats(expected[name])
        # float32 by design: weights of classes in training.
        tolerance = max(case["tolerance"], 1e-6 if name == "inverse_frequency" else 0)
        np.testing.assert_allclose(
            floats(found[name]), wanted, rtol=0, atol=tolerance, err_msg=name
        )
    left_out = set(expected) - set(found)
    assert left_out <= {"all_sample_moments", "sample_covariance_over_population_variances"}
