"""Numbers of a run that learns several targets, or others than classes, for its two JSON files.

Keys beside those of `pipeline.report.metrics_json`, which are those of the rows with a class;
absent where something is undefined, or does not apply:

- `ccc`, the mean over attributes, and `<m>_<attribute>` for ccc, pearson, rmse, mae, bias and
  sd_ratio, each with `_low`, `_high`, `_sd`, `_fold_mean` and `_fold_sd` (the mean over folds is
  another quantity than the pooled score, which rewards knowing the level of a fold);
  `nrmse_<attribute>`, the RMSE as a share of the scale; `valid_ccc`, `valid_ccc_<attribute>`;
  `train_mean_<m>_<attribute>`, predicting the mean of the training split; `clipped_<attribute>`,
  predictions of all trained models that were clipped to the scale.
- `jsd` (bits), `kld` and `soft_nll` (nats), `total_variation`, `cosine`, `brier_soft` and
  `multilabel_macro_f1`, with the same endings; `valid_<m>`; `prior_<m>` and `uniform_<m>`, the mean
  distribution of the training split and an even one; `<m>_entropy_<stratum>`; `soft_temperature`
  and `soft_nll_scaled`.
- `probe_<slot>_ccc` and `_jsd`, `condition_<name>_ccc` and `_jsd`, the latter with `_delta`.
- `human_ccc_<attribute>`, `human_accuracy`: a rater against the others; `alpha_<what>`.
- `rows_<task>` and `rows_<attribute>`: test utterances that count. `rows`: those with any target.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from pipeline.evaluation.attributes.scores import AttributeGuess, AttributeResults
from pipeline.evaluation.ceilings import Ceilings
from pipeline.evaluation.votes.scores import MAIN, VoteGuess, VoteResults
from pipeline.metrics.classes import keys
from pipeline.report.metrics_json import DECIMALS, HEADLINE, run_pairs, summary_pairs
from pipeline.report.targets.record import TargetReport

Pairs = Iterator[tuple[str, float | None]]
_OF_CLASSES = HEADLINE[: HEADLINE.index("parameters")]
_OF_RUN = ("parameters", "train_seconds", "rows", "rejected", "seeds", "shared_speakers")


def target_metrics(report: TargetReport) -> dict[str, float]:
    """Numbers of metrics.json and details.json, from the other fields of `report`."""
    found = {name: value for name, value in _pairs(report) if value is not None}
    return {name: round(value, DECIMALS) for name, value in found.items()}


def target_headline(report: TargetReport) -> tuple[str, ...]:
    """Keys of metrics.json after those that name the run: one score a task, and its rows."""
    found: list[str] = []
    for task in report.tasks:
        if task == "classes":
            found += [*_OF_CLASSES, "valid_macro_f1"]
        elif task == "attributes":
            names = [f"ccc_{name}" for name in report.run.targets.scales]
            found += ["ccc", "ccc_low", "ccc_high", *names, "valid_ccc"]
        else:
            found += [MAIN, f"{MAIN}_low", f"{MAIN}_high", "kld", "multilabel_macro_f1"]
            found += [f"valid_{MAIN}"]
        found += [f"rows_{task}"]
    return (*found, *_OF_RUN)


def _pairs(report: TargetReport) -> Pairs:
    if report.classes is not None:
        yield from report.classes.metrics.items()
        yield "rows_classes", report.classes.metrics["rows"]
    if report.attributes is not None:
        yield from _attributes(report.attributes)
    if report.votes is not None:
        yield from _votes(report.votes)
    if report.ceilings is not None:
        yield from _ceilings(report.ceilings)
    yield from run_pairs(report.run, report.clusters, rows=report.rows, speakers=report.speakers)


def _attributes(found: AttributeResults) -> Pairs:
    if found.mean is not None:
        yield from summary_pairs("ccc", found.mean)
    for each in found.attributes:
        for metric, summary in each.scores.items():
            yield from summary_pairs(f"{metric}_{each.name}", summary)
        yield f"nrmse_{each.name}", each.scores["rmse"].value / (each.high - each.low)
        yield from ((f"train_mean_{m}_{each.name}", v) for m, v in each.train_mean.items())
        yield f"clipped_{each.name}", each.clipped
        yield f"rows_{each.name}", each.rows
    yield from ((f"valid_{name}", value) for name, value in found.valid.items())
    yield from _guesses("probe", "ccc", found.probes)
    yield from _guesses("condition", "ccc", found.conditions)
    yield "rows_attributes", found.rows


def _votes(found: VoteResults) -> Pairs:
    for name, summary in found.scores.items():
        yield from summary_pairs(name, summary)
    yield from ((f"valid_{name}", value) for name, value in found.valid.items())
    yield from ((f"prior_{name}", value) for name, value in found.prior.items())
    yield from ((f"uniform_{name}", value) for name, value in found.uniform.items())
    for stratum in found.entropy:
        yield from ((f"{m}_entropy_{stratum.name}", value) for m, value in stratum.scores.items())
    if found.temperature is not None:
        yield "soft_temperature", found.temperature.mean
        yield "soft_nll_scaled", found.temperature.after
    yield from _guesses("probe", MAIN, found.probes)
    yield from _guesses("condition", MAIN, found.conditions)
    yield "rows_votes", found.rows


def _guesses(kind: str, metric: str, found: Iterable[AttributeGuess | VoteGuess]) -> Pairs:
    guesses = list(found)
    for key, guess in zip(keys(kind, [each.name for each in guesses]), guesses, strict=True):
        value = guess.ccc if isinstance(guess, AttributeGuess) else guess.scores[metric]
        yield f"{key}_{metric}", value
        if kind == "condition" and guess.change is not None:
            yield f"{key}_{metric}_delta", guess.change.value


def _ceilings(found: Ceilings) -> Pairs:
    yield from ((f"human_ccc_{name}", value) for name, value in found.ccc.items())
    yield "human_accuracy", found.accuracy
    yield from ((f"alpha_{what}", value) for what, value in found.alpha.items())
