"""The experiments that `dvc exp show` knows, as rows of a table without hashes.

`dvc exp show --json` is read rather than DVC's Python interface: the latter flattens all names into
one table and writes numbers as text, and what lies below it changes between versions.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from features.errors import ParamsError
from pipeline.metrics import MONITORS
from pipeline.recipes import settings
from pipeline.statistics import Interval

METRICS_FILE, PARAMS_FILE = "reports/metrics.json", "params.yaml"
COLUMNS = ("fusion", "regime", "corpus")
_NO_SCORE = ("shard_seconds", "shard_characters", "allow_rejected")  # of a corpus
_LOWER = ("nll", "brier", "ece", "train_seconds", "parameters", "dropped")
_LOWER_ENDS = ("_sd", "_gap_gender")
_HASH = 40


@dataclass(frozen=True)
class Row:
    """An experiment, commit or workspace with results.

    Attributes:
        name: For people, and for `python -m pipeline compare`.
        rev: What Git calls it, or `workspace`.
        fusion: Entry of `models`; and so on for regime and corpus.
        regime: cached or e2e.
        corpus: Entry of `corpora`.
        metrics: Content of metrics.json.
        differing: Settings that are not those of the commit it started from, as far as they
            concern this experiment.
        test: What decides which utterances are scored: the corpus and its settings.
    """

    name: str
    rev: str
    fusion: str
    regime: str
    corpus: str
    metrics: Mapping[str, float]
    differing: Mapping[str, Any]
    test: tuple[tuple[str, str], ...]

    def interval(self, metric: str) -> Interval | None:
        """The 95 % interval of a metric, if metrics.json has it."""
        low, high = (self.metrics.get(f"{metric}_{end}") for end in ("low", "high"))
        return None if low is None or high is None else Interval(low, high)


@dataclass(frozen=True)
class Shown:
    """What DVC shows.

    Attributes:
        rows: All that have results, each result once.
        without: A line for each experiment that has none, with the reason.
    """

    rows: tuple[Row, ...]
    without: tuple[str, ...]


def read_shown(shown: Sequence[Mapping[str, Any]]) -> Shown:
    """Rows from the content of `dvc exp show --json`.

    Where several have the same numbers to the last digit and the same second of training, they are
    the same run: an experiment goes before the commit or workspace that it was applied to.
    """
    rows: list[Row] = []
    without: list[str] = []
    commits: list[Row] = []
    for commit in shown:
        params = _content(commit, "params", PARAMS_FILE)
        for found in _experiments(commit):
            if isinstance(found, str):
                without.append(found)
            elif row := _row(*found, params):
                rows.append(row)
            else:
                without.append(_missing(*found))
        name = commit.get("name") or commit["rev"]
        if row := _row(name[:7] if len(name) == _HASH else name, commit, {}):
            commits.append(row)
    # The workspace comes first in what DVC shows, and is the copy of any other.
    return Shown(tuple(_each_once([*rows, *reversed(commits)])), tuple(without))


def ascends(metric: str) -> bool:
    """Whether less of it is better."""
    return metric.startswith(_LOWER) or metric.endswith(_LOWER_ENDS)


def check_metric(rows: Sequence[Row], metric: str) -> None:
    """Raise `ParamsError` if no row has a metric."""
    if rows and not any(metric in row.metrics for row in rows):
        known = sorted({name for row in rows for name in row.metrics} - set(MONITORS))
        raise ParamsError(
            f"--metric {metric!r}: no experiment has it; expected one of {list(MONITORS)}, or of "
            f"{known}"
        )


def _experiments(commit: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]] | str]:
    """Name and state of each, or a line about one that is not done."""
    for each in commit.get("experiments") or ():
        state = each["revs"][0]
        name = state.get("name") or each.get("name") or state["rev"][:7]
        # One in the queue shows the metrics of the commit it starts from.
        doing = ((each.get("executor") or {}).get("state") or "success").lower()
        yield (name, state) if doing == "success" else f"{name}: {doing}"


def _row(name: str, state: Mapping[str, Any], base: Mapping[str, Any]) -> Row | None:
    params = _content(state, "params", PARAMS_FILE)
    metrics = _content(state, "metrics", METRICS_FILE)
    if not metrics or not params:
        return None
    fusion, regime, corpus = (str(params.get(key)) for key in COLUMNS)
    entry = params.get("corpora", {}).get(corpus) or {}
    test = [("corpus", corpus), *((k, str(v)) for k, v in entry.items() if k not in _NO_SCORE)]
    return Row(
        *(name, state["rev"], fusion, regime, corpus),
        metrics={key: value for key, value in metrics.items() if isinstance(value, int | float)},
        differing=_differing(params, base) if base else {},
        test=tuple(sorted(test)),
    )


def _differing(params: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """Settings that changed and that this experiment reads."""
    before, now = dict(settings(base)), dict(settings(params))
    fusion, corpus = (str(params.get(key)) for key in ("fusion", "corpus"))
    model = params.get("models", {}).get(fusion) or {}
    backbones = [value for value in model.values() if isinstance(value, str)]
    read = {"models": [fusion], "corpora": [corpus], "backbones": backbones}
    found = {}
    for name, value in now.items():
        section, _, rest = name.partition(".")
        relevant = section not in read or rest.split(".")[0] in read[section]
        if name not in COLUMNS and relevant and (name not in before or before[name] != value):
            found[name] = value
    return found


def _content(state: Mapping[str, Any], kind: str, path: str) -> dict[str, Any]:
    """What a parameter or metrics file held; empty where it is not at hand."""
    content = ((state.get("data") or {}).get(kind) or {}).get(path, {}).get("data")
    return content if isinstance(content, dict) else {}


def _missing(name: str, state: Mapping[str, Any]) -> str:
    found = (state.get("data") or {}).get("metrics", {}).get(METRICS_FILE, {})
    error = found.get("error") or state.get("error") or {}
    why = str(error.get("msg") or error.get("type") or "it has none").splitlines()[0]
    return f"{name}: no metrics at hand ({why}); `dvc exp pull <git remote> {name}` fetches them"


def _each_once(rows: Sequence[Row]) -> Iterator[Row]:
    seen = set()
    for row in rows:
        run = (row.fusion, row.regime, row.test, tuple(sorted(row.metrics.items())))
        if run not in seen:
            seen.add(run)
            yield row
