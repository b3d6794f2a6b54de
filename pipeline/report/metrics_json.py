"""Writes and reads the numbers of a report: metrics.json for DVC's tables, details.json the rest.

metrics.json is small, since DVC's tables have a column for each of its keys: `HEADLINE`, and before
it the keys of `pipeline.evaluation.identity`, which name the run. details.json has all others, and
names the run too. Older releases wrote one metrics.json with all of them, which is still read.

Both are flat objects. Numbers are rounded to `DECIMALS`. `<metric>` is accuracy (WA), uar, macro_f1
or weighted_f1. Scores are fractions, means over seeds with the test rows of all folds pooled. Keys
in this order, absent where they do not apply:

- `<metric>`, and `ovr_accuracy`, the mean accuracy of the K one-vs-rest decisions (never the
  accuracy: it is 1 - 2 (1 - accuracy) / K), and `ovr_weighted_f1`, the mean of their
  support-weighted F1 (neither weighted_f1 nor macro_f1). Each with `_low` and `_high` (95 %
  interval), `_sd` (over seeds), `_fold_mean` and `_fold_sd` (mean and standard deviation over
  folds, for several).
- `unparsed`, of a model that answers in words: share of the test rows whose answer names no class.
  They count as wrong in each of the scores above.
- `f1_<class>`.
- `valid_<metric>`: validation split, mean over trained models. Select settings by these.
- `majority_<metric>`, `chance_<metric>`, `prior_<metric>`: chance level (`evaluation.baselines`).
- `nll`, `brier`, `ece`, `ece_adaptive`, then the same with `_scaled`, after the temperature
  scaling on validation rows; `temperature`, the mean over trained models.
- `uar_<field>_<group>` for field gender, duration, session, words, text_probe, lexical;
  `<metric>_gap_gender` (highest minus lowest) with `_low` and `_high`.
- `speaker_accuracy_min`, `speaker_accuracy_median`, `speaker_accuracy_max`.
- `probe_<slot>_<metric>`: a linear probe on one slot alone.
- `layer_<slot>_<n>_<metric>`, and `valid_` before it: a linear probe on hidden state n of a stack;
  a layer is chosen by the latter.
- `mix_<slot>_<n>`: learned weight of hidden state n (`inputs.mix_layers`), mean over trained
  models; `mix_<slot>_<n>_seed_<k>_fold_<j>`: of each; `mix_<slot>_scale_...`: factor of their sum.
- `condition_<name>_<metric>` and `condition_<name>_<metric>_delta` (minus the model itself).
- of an ensemble, `gain_<metric>` with `_low` and `_high`: its score minus that of the best single
  member, chosen on validation, paired; `member_<member>_<metric>`: a member by itself.
- `parameters`, `rows` (test utterances that were scored), `speakers`, `clusters` (what intervals
  are drawn over: speakers or dialogues), `shared_speakers` (those who speak in several clusters: if
  there are some, intervals are too narrow for other people), `rejected` (utterances of all splits
  without features in some slot), `seeds`, `folds`, `train_seconds`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from features.errors import ManifestError
from features.files.records import read_json, read_record, write_json
from pipeline.evaluation.baselines import Baselines
from pipeline.evaluation.calibration import Calibration
from pipeline.evaluation.groups import Grouping
from pipeline.evaluation.identity import KEYS, RunIdentity
from pipeline.evaluation.layers import MixedSlot, mixed_slots
from pipeline.evaluation.rows import Clusters
from pipeline.evaluation.run_folder import RunFolder
from pipeline.evaluation.statistics import ConfidenceInterval
from pipeline.evaluation.summaries import Summary, validation_means
from pipeline.html.format import shared_speakers_note
from pipeline.metrics.classes import MONITORS, f1_names, keys, unanswered
from pipeline.report.records import Report

DECIMALS = 6
METRICS, DETAILS = "metrics.json", "details.json"
HEADLINE = (
    *("accuracy", "uar", "macro_f1", "macro_f1_low", "macro_f1_high", "weighted_f1", "ece"),
    *("parameters", "train_seconds", "valid_macro_f1", "rows", "rejected", "seeds"),
    "shared_speakers",
)
"""Keys of metrics.json after those that name the run; then `UNPARSED`, if the model answers."""
UNPARSED = "unparsed"
OTHER_HEADLINES = ("ccc", "rows_attributes", "jsd")
"""Keys one of which a metrics.json has that says nothing, or more than something, of classes."""
_NO_SCORES = (
    *("parameters", "train_seconds", "seeds", "folds", "temperature", "clusters", "speakers"),
    *("rows", "rejected", "dropped", "shared_speakers"),
)
_TO_CHOOSE_BY = ("valid_macro_f1", "valid_ccc", "valid_jsd")  # one of each task
_OF_VOTES = ("jsd", "kld", "multilabel_macro_f1")
_OTHER = "folds"  # in each details.json, and in a metrics.json that holds all
_AGAIN = "run `dvc repro`, or `python -m stages.evaluate`, again"
Pairs = Iterator[tuple[str, float | None]]


def metrics_of(report: Report) -> dict[str, float]:
    """Numbers of metrics.json and details.json, from the other fields of `report`."""
    pairs = dict(_pairs(report))
    return {name: round(value, DECIMALS) for name, value in pairs.items() if value is not None}


@dataclass(frozen=True)
class _Shown:
    """Keys that `headline` needs."""

    accuracy: float
    uar: float
    macro_f1: float
    weighted_f1: float


@dataclass(frozen=True)
class _Details:
    """The key that every details.json has."""

    folds: float


def read_metrics(path: Path) -> dict[str, float | str]:
    """Read metrics.json alone.

    Raises:
        ManifestError: If it is missing, or holds anything but numbers and the run's identity.
    """
    return _read(path, _Shown)


def read_all(folder: Path) -> dict[str, float | str]:
    """Read all numbers of a report, whichever release wrote it.

    Raises:
        ManifestError: As `read_metrics`; and if details.json is of another report.
    """
    content = read_metrics(folder / METRICS)
    if is_whole(content):
        return content
    rest = _read(folder / DETAILS, _Details)
    if RunIdentity.read(rest) != RunIdentity.read(content):
        raise ManifestError(
            f"{folder / DETAILS} and {METRICS} beside it are of different runs; expected those of "
            f"one report: {_AGAIN}"
        )
    return content | rest


def is_whole(metrics: Mapping[str, Any]) -> bool:
    """Whether a metrics.json holds all numbers, as those of older releases do."""
    return _OTHER in metrics


def split_of(name: str) -> str | None:
    """The split that a number is a score of, "test" or "valid"; None if it is no score.

    >>> split_of("valid_uar"), split_of("probe_text_uar"), split_of("rows_attributes")
    ('valid', 'test', None)
    """
    if name.startswith("valid_"):
        return "valid"
    return None if name in _NO_SCORES or name.startswith(("rows_", "mix_")) else "test"


def write_numbers(
    folder: Path,
    numbers: Mapping[str, float],
    identity: RunIdentity,
    shown: Sequence[str] = HEADLINE,
) -> None:
    """Write metrics.json and details.json.

    Args:
        folder: Existing folder.
        numbers: All numbers of the report.
        identity: The run, named in both files.
        shown: Keys of metrics.json, as far as the report has them.
    """
    named = identity.to_dict()
    headline = {name: numbers[name] for name in shown if name in numbers}
    write_json(folder / METRICS, named | headline)
    rest = {name: value for name, value in numbers.items() if name not in headline}
    write_json(folder / DETAILS, named | rest)


def _read(path: Path, schema: type) -> dict[str, float | str]:
    content = read_json(path)
    if not any(name in content for name in OTHER_HEADLINES):
        content = read_record(path, schema, _AGAIN)
    for name, value in content.items():
        right = str if name in KEYS else (int, float)
        if not isinstance(value, right) or isinstance(value, bool):
            expected = "text" if name in KEYS else "a number"
            raise ManifestError(f"{path}: {name}: given {value!r}; expected {expected}: {_AGAIN}")
    return content


def headline(metrics: Mapping[str, Any]) -> str:
    """The main metrics as a plain-text table, without a final line break."""
    identity = RunIdentity.read(metrics)
    lines = [identity.line()] if identity else []
    lines += _table(metrics, [name for name in MONITORS if name in metrics], "majority")
    if UNPARSED in metrics:
        lines.append(f"answers that name no class, which count as wrong: {metrics[UNPARSED]:.1%}")
    attributes = [name.removeprefix("rows_") for name in metrics if name.startswith("rows_")]
    of_attributes = [f"ccc_{name}" for name in attributes if f"ccc_{name}" in metrics]
    lines += _table(metrics, [*(["ccc"] if "ccc" in metrics else []), *of_attributes], "train_mean")
    lines += _table(metrics, [name for name in _OF_VOTES if name in metrics], "prior")
    shared = metrics.get("shared_speakers", 0)  # 0 where speakers are drawn
    lines += [shared_speakers_note(shared, "dialogue")] if shared else []
    valid = [
        f"{key.removeprefix('valid_')} {metrics[key]:.3f}"
        for key in _TO_CHOOSE_BY
        if key in metrics
    ]
    lines += (
        [f"validation split: {', '.join(valid)}; settings are chosen by these"] if valid else []
    )
    return "\n".join(lines)


def _table(metrics: Mapping[str, Any], names: Sequence[str], baseline: str) -> list[str]:
    """Lines of a table of metrics and one of their baselines; none without metrics."""
    if not names:
        return []
    width, title = max(12, *map(len, names)), baseline.replace("_", " ")
    over = max(8, len(title))
    lines = [
        f"{'test split':<{width}} {'score':>6}  {'95 % interval':<14}  {'sd':>6}  {title:>{over}}"
    ]
    for name in names:
        low, high = metrics.get(f"{name}_low"), metrics.get(f"{name}_high")
        interval = "-" if low is None or high is None else f"{low:.3f} - {high:.3f}"
        sd, guess = (metrics.get(key) for key in (f"{name}_sd", f"{baseline}_{name}"))
        lines.append(
            f"{name:<{width}} {metrics[name]:>6.3f}  {interval:<14}  {_or_dash(sd):>6}  "
            f"{_or_dash(guess):>{over}}"
        )
    return lines


def _pairs(report: Report) -> Pairs:
    for name, summary in report.summaries.items():
        yield from summary_pairs(name, summary)
    if report.calibration is None:
        yield UNPARSED, float(unanswered(report.confusions).mean())
    for key, of_class in zip(f1_names(report.run.classes), report.classes, strict=True):
        yield key, of_class.f1
    for name, mean in validation_means(report.run).items():
        yield f"valid_{name}", mean
    yield from _baselines(report.baselines)
    yield from _calibration(report.calibration)
    for grouping in report.groupings:
        yield from _grouping(grouping)
    spread = report.speaker_spread
    for end, value in (("min", spread.lowest), ("median", spread.median), ("max", spread.highest)):
        yield f"speaker_accuracy_{end}", value
    yield from _slots(report)
    yield from _members(report)
    yield from run_pairs(
        report.run, report.clusters, rows=int(report.confusions[0].sum()), speakers=report.speakers
    )


def run_pairs(run: RunFolder, clusters: Clusters, *, rows: int, speakers: int) -> Pairs:
    """Keys and values of the run as a whole; `rows` and `speakers` are those of its test split."""
    yield from {
        "parameters": run.parameters,
        "rows": rows,
        "speakers": speakers,
        "clusters": clusters.number,
        "shared_speakers": clusters.shared_speakers,
        "rejected": len(run.dropped),
        "seeds": len(run.seeds),
        "folds": run.folds,
        "train_seconds": run.train_seconds,
    }.items()
    for mixed in mixed_slots(run):
        yield from _mix(mixed)


def _mix(found: MixedSlot) -> Pairs:
    """Keys and values of the learned weights of a slot's layers."""
    for place, (number, mean, *_) in enumerate(found.rows):
        key = f"mix_{found.slot}_{number}"
        yield key, mean
        for model in found.models:
            yield f"{key}_seed_{model.seed}_fold_{model.fold}", float(model.mix.shares[place])
    for model in found.models:
        yield f"mix_{found.slot}_scale_seed_{model.seed}_fold_{model.fold}", model.mix.scale


def summary_pairs(name: str, summary: Summary) -> Pairs:
    """Keys and values of one metric."""
    yield name, summary.value
    yield from _interval(name, summary.interval)
    yield f"{name}_sd", summary.sd
    yield f"{name}_fold_mean", summary.fold_mean
    yield f"{name}_fold_sd", summary.fold_sd


def _interval(name: str, interval: ConfidenceInterval | None) -> Pairs:
    if interval is not None:
        yield f"{name}_low", interval.low
        yield f"{name}_high", interval.high


def _baselines(found: Baselines) -> Pairs:
    for kind in ("majority", "chance", "prior"):
        of = getattr(found, kind)
        yield from ((f"{kind}_{name}", of[name]) for name in MONITORS)


def _calibration(found: Calibration | None) -> Pairs:
    if found is None:
        return
    yield from vars(found.before).items()
    if found.after is not None:
        yield from ((f"{name}_scaled", value) for name, value in vars(found.after).items())
        yield "temperature", sum(found.temperatures) / len(found.temperatures)


def _grouping(found: Grouping) -> Pairs:
    names = keys(f"uar_{found.field}", [group.name for group in found.groups])
    for key, group in zip(names, found.groups, strict=True):
        yield key, group.scores.get("uar")
    if found.field == "gender":
        for metric, gap in found.gaps.items():
            yield f"{metric}_gap_gender", gap.value
            yield from _interval(f"{metric}_gap_gender", gap.interval)


def _slots(report: Report) -> Pairs:
    named = keys("probe", [probe.slot for probe in report.probes])
    for key, probe in zip(named, report.probes, strict=True):
        yield from ((f"{key}_{name}", probe.whole.scores[name]) for name in MONITORS)
    for curve in report.curves:
        for layer in curve.layers:
            key = f"layer_{curve.name}_{layer.number}"
            yield from ((f"{key}_{name}", layer.test[name]) for name in MONITORS)
            yield from ((f"valid_{key}_{name}", layer.valid[name]) for name in MONITORS)
    named = keys("condition", [condition.name for condition in report.conditions])
    for key, condition in zip(named, report.conditions, strict=True):
        for name in MONITORS:
            yield f"{key}_{name}", condition.whole.scores[name]
            yield f"{key}_{name}_delta", condition.differences[name].value


def _members(report: Report) -> Pairs:
    if report.best_member is not None:
        for name, gain in report.best_member.gains.items():
            yield f"gain_{name}", gain.value
            yield from _interval(f"gain_{name}", gain.interval)
    named = keys("member", [member.name for member in report.members])
    for key, member in zip(named, report.members, strict=True):
        yield from ((f"{key}_{name}", member.whole.scores[name]) for name in MONITORS)


def _or_dash(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
