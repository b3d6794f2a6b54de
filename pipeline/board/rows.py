"""Read the experiments of `dvc exp show` as rows: names, metrics and the settings they changed.

The run that a row is about is read from metrics.json (`pipeline.evaluation.identity`), since
params.yaml of a workspace, of a commit, or of what `dvc exp save` kept may have been edited after
training. metrics.json of an older release names no run; then params.yaml is trusted for an
experiment that DVC ran, and the run of a commit or workspace is unknown.

`dvc exp show --json` is read rather than DVC's Python interface: the latter flattens all names into
one table and writes numbers as text, and its internals change between versions.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from features.errors import ParamsError
from pipeline.evaluation.identity import RunIdentity
from pipeline.evaluation.statistics import ConfidenceInterval
from pipeline.metrics.classes import MONITORS
from pipeline.params.recipes import settings
from pipeline.params.selection import RUNS
from pipeline.report.metrics_json import METRICS, is_whole

METRICS_FILE, PARAMS_FILE = f"reports/{METRICS}", "params.yaml"
COLUMNS = ("fusion", "regime", "corpus")
# Settings of a corpus that change no score.
_NO_SCORE = ("shard_seconds", "shard_characters", "shard_bytes", "allow_rejected")
# `dropped` is what older releases call `rejected`.
_LOWER = ("nll", "brier", "ece", "train_seconds", "parameters", "rejected", "dropped")
# Scores of attributes and votes, each alone or before `_<attribute>` or the like.
_ERRORS = (*("rmse", "mae", "nrmse", "jsd", "kld", "total_variation", "brier_soft", "soft_nll"),)
_OF_GUESSES = ("train_mean_", "prior_", "uniform_")
_NEITHER = ("bias_", "clipped_", "sd_ratio_", "rows_")
_LOWER_ENDS = ("_sd", "_gap_gender", "_jsd")
_HASH = 40  # letters of a commit's hash
UNKNOWN = "?"
_VALID = "valid_"


@dataclass(frozen=True)
class Row:
    """An experiment, commit, workspace or run folder with results.

    Attributes:
        name: Name of the experiment, branch, commit or folder, as `heronry compare` takes it.
        rev: Git revision, `workspace`, or path of a run folder.
        fusion: Entry of `models`.
        regime: cached or e2e.
        corpus: Entry of `corpora`.
        metrics: Numbers of metrics.json, and of details.json where `with_details` added them.
        differing: Settings that differ from the commit it started from, as far as this experiment
            reads them.
        test: Identity of the test set; only rows with the same one are compared. A hash, or the
            corpus and its settings where metrics.json has no hash.
        settings: Settings of the corpus, if params.yaml can be trusted.
        note: The selection of params.yaml, if the results are of another run.
    """

    name: str
    rev: str
    fusion: str
    regime: str
    corpus: str
    metrics: Mapping[str, float]
    differing: Mapping[str, Any]
    test: tuple[tuple[str, str], ...]
    settings: Mapping[str, str] = field(default_factory=dict)
    note: str = ""

    def interval(self, metric: str) -> ConfidenceInterval | None:
        """The 95 % interval of a metric, if it is known."""
        low, high = (self.metrics.get(f"{metric}_{end}") for end in ("low", "high"))
        return None if low is None or high is None else ConfidenceInterval(low, high)


@dataclass(frozen=True)
class Shown:
    """Rows with results, each result once, and what has none here.

    Attributes:
        rows: Experiments, commits and the workspace.
        without: A line for each experiment without results.
        same: A line for each experiment whose results are those of another one.
        unreported: A line for each run folder that no row is about.
        elsewhere: Number of experiments that started from other commits and are not read.
    """

    rows: tuple[Row, ...]
    without: tuple[str, ...]
    same: tuple[str, ...] = ()
    unreported: tuple[str, ...] = ()
    elsewhere: int = 0


def read_shown(shown: Sequence[Mapping[str, Any]]) -> Shown:
    """Rows from the content of `dvc exp show --json`.

    Rows with the same numbers to the last digit, seconds of training among them, are one run: the
    experiment is kept rather than the commit or workspace that it was applied to. An experiment
    whose results DVC's run-cache had is such a copy too.
    """
    rows: list[Row] = []
    without: list[str] = []
    commits: list[Row] = []
    for commit in shown:
        params = _content(commit, "params", PARAMS_FILE)
        for found in _experiments(commit):
            if isinstance(found, str):
                without.append(found)
            elif row := _row(*found, params, ran=True):
                rows.append(row)
            else:
                without.append(_missing(*found))
        name = commit.get("name") or commit["rev"]
        if row := _row(name[:7] if len(name) == _HASH else name, commit, {}, ran=False):
            commits.append(row)
    # DVC lists the workspace first; reversed, so that it is the copy of any commit.
    kept, copies = _each_once([*rows, *reversed(commits)])
    experiments = {row.name for row in rows}
    same = [
        f"{copy.name}: the same run as {of.name}" for copy, of in copies if copy.name in experiments
    ]
    return Shown(tuple(kept), tuple(without), tuple(same))


def with_details(shown: Shown, metric: str, read: Callable[[str], Mapping[str, Any]]) -> Shown:
    """The same rows, with all numbers where metrics.json lacks those of `metric`.

    Args:
        shown: Rows with the numbers of metrics.json.
        metric: Metric that ranks the rows.
        read: Content of the details.json of a revision.
    """
    needed = {metric, *(f"{reported(metric)}{end}" for end in ("", "_low", "_high"))}
    rows = []
    for row in shown.rows:
        if not needed <= row.metrics.keys() and not is_whole(row.metrics):
            row = replace(row, metrics={**_numbers(read(row.rev)), **row.metrics})
        rows.append(row)
    return replace(shown, rows=tuple(rows))


def ascends(metric: str) -> bool:
    """Whether lower values of a metric are better.

    >>> [ascends(name) for name in ("rmse_valence", "valid_jsd", "maelstrom", "ccc_valence_sd")]
    [True, True, False, True]
    """
    score = reported(metric)
    for kind in _OF_GUESSES:
        score = score.removeprefix(kind)
    of_target = any(score == name or score.startswith(f"{name}_") for name in _ERRORS)
    return of_target or metric.startswith(_LOWER) or metric.endswith(_LOWER_ENDS)


def reported(metric: str) -> str:
    """The metric of the test split that belongs to a validation metric; any other unchanged.

    >>> reported("valid_uar"), reported("uar"), reported("nll")
    ('uar', 'uar', 'nll')
    """
    return metric.removeprefix(_VALID)


def check_metric(rows: Sequence[Row], metric: str) -> None:
    """Raise `ParamsError` if no row has a metric, or if neither more nor less of it is better."""
    if reported(metric).removeprefix("train_mean_").startswith(_NEITHER):
        raise ParamsError(
            f"--metric {metric!r}: neither more nor less of it is better; expected a score, such "
            "as mae_<attribute> in place of a bias"
        )
    if rows and not any(metric in row.metrics for row in rows):
        usual = [*(f"{_VALID}{name}" for name in MONITORS), *MONITORS]
        known = {name for row in rows for name in row.metrics}
        close = difflib.get_close_matches(metric, known)
        meant = f" (did you mean {' or '.join(close)}?)" if close else ""
        raise ParamsError(
            f"--metric {metric!r}: no experiment has it; expected one of {usual}, or another of "
            f"the {len(known)} numbers of reports/metrics.json and details.json{meant}"
        )


def _experiments(commit: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]] | str]:
    """Name and state of each experiment, oldest first, or a line about an unfinished one."""
    # DVC lists the newest first; of two with the same results the older one made them.
    for each in sorted(commit.get("experiments") or (), key=_made):
        state = each["revs"][0]
        name = state.get("name") or each.get("name") or state["rev"][:7]
        # DVC shows a queued experiment with the metrics of the commit that it starts from.
        doing = ((each.get("executor") or {}).get("state") or "success").lower()
        yield (name, state) if doing == "success" else f"{name}: {doing}"


def _made(experiment: Mapping[str, Any]) -> str:
    """When an experiment was made, as DVC says it; empty where it does not."""
    return (experiment["revs"][0].get("data") or {}).get("timestamp") or ""


def _row(name: str, state: Mapping[str, Any], base: Mapping[str, Any], *, ran: bool) -> Row | None:
    """A row, or None without results; `ran`: whether DVC ran it with its own params.yaml."""
    params = _content(state, "params", PARAMS_FILE)
    metrics = _content(state, "metrics", METRICS_FILE)
    if not metrics or not params:
        return None
    whose, note = RunIdentity.read(metrics), ""
    fusion, regime, corpus = (str(params.get(key)) for key in COLUMNS)
    if whose is not None:
        selected = f"{fusion} on {corpus} ({regime})"
        if whose.line() != selected:
            ran, note = False, f"of {whose.line()}; params.yaml selects {selected}"
        fusion, regime, corpus = whose.run_fusion, whose.run_regime, whose.run_corpus
    elif not ran:
        fusion = regime = corpus = UNKNOWN
        note = "does not say whose results these are; `dvc repro` evaluates again and names them"
    entry = params.get("corpora", {}).get(corpus) or {}
    known = {key: str(value) for key, value in entry.items() if key not in _NO_SCORE} if ran else {}
    scored = known if whose is None else {"test": whose.test_sha256}
    return Row(
        *(name, state["rev"], fusion, regime, corpus),
        metrics=_numbers(metrics),
        differing=_differing(params, base) if base and ran else {},
        test=tuple(sorted({"corpus": corpus, **scored}.items())),
        settings=known,
        note=note,
    )


def _differing(params: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that changed and that this experiment reads."""
    before, now = dict(settings(base)), dict(settings(params))
    fusion, corpus = (str(params.get(key)) for key in ("fusion", "corpus"))
    model = params.get("models", {}).get(fusion) or {}
    backbones = [value for value in model.values() if isinstance(value, str)]
    read = {section: [fusion] for section in RUNS} | {"corpora": [corpus], "backbones": backbones}
    asr = [name for name in backbones if name in (params.get("asr_backbones") or {})]
    transcribed = list(params.get("transcribe") or {}) if asr else []
    read |= {"asr_backbones": asr, "transcribe": transcribed, "registry": backbones}
    found = {}
    for name, value in now.items():
        # Of models, corpora and backbones only the entries that this experiment selects matter.
        section, _, rest = name.partition(".")
        relevant = section not in read or rest.split(".")[0] in read[section]
        if name not in COLUMNS and relevant and (name not in before or before[name] != value):
            found[name] = value
    return found


def _numbers(content: Mapping[str, Any]) -> dict[str, float]:
    return {name: value for name, value in content.items() if isinstance(value, int | float)}


def _content(state: Mapping[str, Any], kind: str, path: str) -> dict[str, Any]:
    """Content of a parameter or metrics file; empty where DVC does not have it."""
    content = ((state.get("data") or {}).get(kind) or {}).get(path, {}).get("data")
    return content if isinstance(content, dict) else {}


def _missing(name: str, state: Mapping[str, Any]) -> str:
    found = (state.get("data") or {}).get("metrics", {}).get(METRICS_FILE, {})
    error = found.get("error") or state.get("error") or {}
    why = str(error.get("msg") or error.get("type") or "it has none").splitlines()[0]
    return f"{name}: metrics not available ({why}); `dvc exp pull <git remote> {name}` fetches them"


def _each_once(rows: Sequence[Row]) -> tuple[list[Row], list[tuple[Row, Row]]]:
    """Rows whose results no former row has, and the others, each with the row that has them."""
    seen: dict[Hashable, Row] = {}
    kept, copies = [], []
    for row in rows:
        numbers = tuple(sorted(row.metrics.items()))
        # A row of an unknown run is a copy if any run has its numbers.
        run = (row.fusion, row.regime, row.test, numbers)
        of = seen.get(run) or (seen.get(numbers) if row.fusion == UNKNOWN else None)
        if of is not None:
            copies.append((row, of))
        else:
            seen |= {run: row, numbers: row}
            kept.append(row)
    return kept, copies
