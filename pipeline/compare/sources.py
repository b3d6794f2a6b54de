"""Read the test predictions of a run from a folder, a file, or a DVC experiment, as arrays.

A run is named by what holds its predictions:

- `workspace`: `reports/` here;
- a path: a run folder (with run.json), or predictions.csv or predictions.parquet of a report, or a
  folder with one of them;
- anything else: a DVC experiment or a Git revision, whose `reports/predictions.csv` DVC reads from
  its cache, or from the remote where one is set.

Fusion, corpus and regime are read from these files (run.json of a run folder, metrics.json beside
the predictions of a report, the metadata of a Parquet file), never from what params.yaml selects
now. Transcripts come from the labels of the corpus, where they are found (`known_labels`).

Shapes: R rows of all splits, I test rows of one seed (utterance and fold), S seeds, K classes, A
attributes.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from features.arguments import one_of
from features.corpus.manifest import Label, read_labels
from features.errors import HeronryError, ParamsError, RunError
from features.files.reading import file_sha256
from pipeline.evaluation.identity import RunIdentity
from pipeline.evaluation.predictions import CSV, PARQUET, named_in, read_predictions
from pipeline.evaluation.rows import Ints
from pipeline.evaluation.run_folder import RunFolder
from pipeline.metrics.classes import Floats
from pipeline.report.metrics_json import METRICS, read_metrics
from pipeline.runs.layout import PREDICTIONS, SCORED
from pipeline.runs.tables import no_distribution, not_likeliest
from pipeline.storage.experiments import finished

REPORT = "reports/predictions.csv"
WORKSPACE = "workspace"
_FILES = (CSV, PARQUET)

Key = tuple[int, str]
"""Fold and utterance id: some protocols test an utterance in several folds, by several models."""


@dataclass(frozen=True)
class Item:
    """A test row without its prediction."""

    fold: int
    id: str
    label: str | None
    speaker: str
    dialogue: str | None


@dataclass(frozen=True)
class PredictedTargets:
    """Truth and predictions of other targets than classes.

    Attributes:
        shares: `[I, K]` shares of the votes, NaN where a row has none; None where the run does not
            learn votes.
        attributes: Names of the A attributes.
        truth: `[I, A]`, NaN where unknown.
        values: `[S, I, A]` predicted ones.
    """

    shares: Floats | None
    attributes: tuple[str, ...]
    truth: Floats
    values: Floats


NO_TARGETS = PredictedTargets(None, (), np.zeros((0, 0)), np.zeros((0, 0, 0)))


@dataclass(frozen=True)
class PredictedRun:
    """The test predictions of a run.

    Attributes:
        name: Name as the user gave it.
        classes: Names of the K classes.
        seeds: The S seeds, in ascending order.
        items: The I rows that every seed predicted, by key, in order of their first row.
        predictions: `[S, I]` indices below K; -1 where a run without probabilities named no class.
        probabilities: `[S, I, K]`; NaN if the run gives none.
        incomplete: Test rows that only some seeds predicted.
        untested: Rows of the valid split.
        dropped: Reasons by id of utterances that the run left out; empty where it has none.
        labels: `data/<corpus>/labels` of a run folder, if it exists.
        whose: Fusion, corpus and regime, such as "spectral on mine (cached)"; None where the files
            do not name them.
        targets: Truth and predictions of other targets than classes, of the same rows.
    """

    name: str
    classes: tuple[str, ...]
    seeds: tuple[int, ...]
    items: Mapping[Key, Item]
    predictions: Ints
    probabilities: Floats
    incomplete: frozenset[Key]
    untested: frozenset[Key]
    dropped: Mapping[str, str]
    labels: Path | None
    whose: str | None = None
    targets: PredictedTargets = NO_TARGETS


def read_run(name: str) -> PredictedRun:
    """Read the test predictions of a run.

    Args:
        name: A path, `workspace`, or a DVC experiment or Git revision; an existing path wins.

    Raises:
        RunError: If the predictions are missing, malformed or contradict each other.
        ParamsError: If there is neither such a path nor such a revision.
    """
    path = Path(REPORT).parent if name == WORKSPACE else Path(name)
    if (path / "run.json").is_file():
        return _from_folder(name, path)
    if path.exists() or name == WORKSPACE:
        return _from_file(name, _file(path))
    return _from_revision(name)


def _file(path: Path) -> Path:
    if path.is_file():
        return path
    found = [path / name for name in _FILES if (path / name).is_file()]
    if not found:
        raise RunError(
            f"{path} holds no run.json and none of {list(_FILES)}; expected a run folder such as "
            "runs/cached/demo/heron or the reports of one: run `dvc repro` or `dvc pull`"
        )
    return found[0]


def _from_folder(name: str, path: Path) -> PredictedRun:
    run = RunFolder.read(path)
    values: dict[str, list[Any]] = {
        key: [cell for job in run.jobs for cell in job.table.column(key)] for key in PREDICTIONS
    }
    for key in ("fold", "seed"):
        values[key] = [int(cell) for cell in values[key]]
    for key in ("dialogue", "label", "prediction"):
        values[key] = [cell or None for cell in values[key]]
    shares = np.concatenate([job.probabilities for job in run.jobs])
    more = {
        prefix: np.concatenate([getattr(job, name) for job in run.jobs])
        for prefix, name in {"t": "shares", "y": "truth", "v": "values"}.items()
    }
    parents = path.absolute().parents  # <project>/runs/<regime>/<corpus>/<fusion>
    labels = parents[min(3, len(parents) - 1)] / "data" / run.corpus / "labels"
    return _arranged(
        *(name, run.classes, values),
        _Columns(
            shares,
            more["t"] if "votes" in run.targets.tasks else None,
            tuple(run.targets.scales),
            more["y"],
            more["v"],
        ),
        dropped=run.dropped,
        labels=labels if labels.is_dir() else None,
        whose=f"{run.fusion} on {run.corpus} ({run.regime})",
    )


def _from_file(name: str, path: Path) -> PredictedRun:
    table = read_predictions(path)
    whose = _identity(path)
    by_prefix: dict[str, list[str]] = {prefix: [] for prefix in "ptyvgm"}
    for column in table.column_names[len(PREDICTIONS) :]:
        by_prefix[column[0]].append(column)
    values = table.select(list(PREDICTIONS)).to_pydict()
    classes = tuple(name.removeprefix("p_") for name in by_prefix["p"])
    # Of several targets a row may lack its class; without classes all do.
    others = bool(by_prefix["t"] or by_prefix["v"])
    found = {prefix: _columns(table, names) for prefix, names in by_prefix.items()}
    probabilities = found["p"]
    without = bool(np.isnan(probabilities).all())  # also without classes
    empty = {"dialogue", *(["label"] if others else []), *(["prediction"] if without else [])}
    for key, cells in values.items():
        if key not in empty and None in cells:
            raise RunError(f"{path}: row {cells.index(None) + 1} has no {key}; expected one")
    _check_words(path, values, classes)
    if not without:
        _check_probabilities(path, values, probabilities, classes)
    line = whose.line() if whose else None
    names = tuple(name.removeprefix("v_") for name in by_prefix["v"])
    shares = found["t"] if by_prefix["t"] else None
    cells = _Columns(probabilities, shares, names, found["y"], found["v"])
    return _arranged(name, classes, values, cells, whose=line)


class _Columns(NamedTuple):
    """Numbers of R rows: probabilities, shares of votes, true and predicted attributes."""

    probabilities: Floats
    shares: Floats | None
    attributes: tuple[str, ...]
    truth: Floats
    values: Floats


def _columns(table: Any, names: Sequence[str]) -> Floats:
    """Columns of an Arrow table, `[R, names]`; NaN where a cell is empty."""
    columns = [table.column(name).to_numpy() for name in names]
    return np.stack(columns, 1).astype(np.float64) if columns else np.zeros((table.num_rows, 0))


def _check_probabilities(
    path: Path, values: Mapping[str, Any], probabilities: Floats, classes: Sequence[str]
) -> None:
    row = no_distribution(probabilities)
    if row is not None:
        shares = probabilities[row].tolist()
        raise RunError(f"{path}: row {row + 1}: probabilities {shares}; expected a sum of 1")
    guesses = np.array([classes.index(name) for name in values["prediction"]], np.int64)
    row = not_likeliest(probabilities, guesses)
    if row is not None:
        raise RunError(
            f"{path}: row {row + 1}: the prediction {values['prediction'][row]!r} is not the class "
            "of the highest probability; expected the likeliest"
        )


def _identity(path: Path) -> RunIdentity | None:
    """The run that a report's predictions are of; None where no file names it.

    Raises:
        RunError: If metrics.json beside them belongs to other predictions.
    """
    beside = path.with_name(METRICS)
    named = named_in(path) if path.suffix == ".parquet" else None
    if path.name not in _FILES or not beside.is_file():
        return named
    found = RunIdentity.read(read_metrics(beside))
    if found is None:
        return named
    # A Parquet file names its run; a CSV file is recognised by its hash in metrics.json.
    same = found == named if named else file_sha256(path) == found.predictions_sha256
    if not same and (named or path.name == CSV):
        raise RunError(
            f"{path} is not what {beside} was computed from ({found.line()}); expected files of "
            "one report: run `dvc repro`, or `python -m stages.evaluate` again"
        )
    return found


def _check_words(path: Path, values: Mapping[str, Any], classes: Sequence[str]) -> None:
    for name, allowed in {"split": SCORED, "label": classes, "prediction": classes}.items():
        odd = sorted(set(values[name]) - {*allowed, None})
        if odd:
            raise RunError(f"{path}: {name} {odd[0]!r}; expected one of {list(allowed)}")


def _from_revision(rev: str) -> PredictedRun:
    # DVC takes a second to import, and most comparisons are of folders.
    import dvc.api  # type: ignore[import-untyped]
    from dvc.exceptions import DvcException  # type: ignore[import-untyped]
    from dvc.scm import RevError, SCMError  # type: ignore[import-untyped]

    try:
        with dvc.api.open(REPORT, rev=rev, mode="rb") as file:
            content = {CSV: file.read()}
        with (
            # An old report has no metrics.json, and does not name its run.
            contextlib.suppress(DvcException, OSError),
            dvc.api.open(f"reports/{METRICS}", rev=rev, mode="rb") as file,
        ):
            content[METRICS] = file.read()
    except (RevError, SCMError) as error:
        known = one_of(rev, [WORKSPACE, *(each.name for each in finished())])
        raise ParamsError(
            f"{rev}: neither a folder or file here nor an experiment or revision ({error}); "
            f"expected {known}, another revision, or a path; `dvc exp pull <remote> NAME` fetches "
            "a team mate's experiment"
        ) from error
    except (DvcException, OSError) as error:
        raise RunError(
            f"cannot read {REPORT} of {rev} ({error}); if it is not in DVC's cache, run "
            f"`dvc exp pull <remote> {rev}` or, for a commit, `dvc fetch`"
        ) from error
    with TemporaryDirectory() as folder:
        for name, found in content.items():
            Path(folder, name).write_bytes(found)
        try:
            return _from_file(rev, Path(folder, CSV))
        except RunError as error:
            # The message names a temporary file, which the user has never seen.
            raise RunError(str(error).replace(folder, f"{rev}: reports")) from error


def _arranged(
    name: str,
    classes: tuple[str, ...],
    values: Mapping[str, Sequence[Any]],
    numbers: _Columns,
    *,
    dropped: Mapping[str, str] | None = None,
    labels: Path | None = None,
    whose: str | None = None,
) -> PredictedRun:
    """The test rows as arrays by seed, without those that some seed lacks.

    `values` are the columns of `PREDICTIONS` with R rows of all seeds, folds and splits, `numbers`
    the others.
    """
    test = [row for row, split in enumerate(values["split"]) if split == "test"]
    keys: list[Key] = list(zip(values["fold"], values["id"], strict=True))
    seeds = tuple(sorted({values["seed"][row] for row in test}))
    if not test:
        raise RunError(f"{name}: no rows of the test split; expected some: run `dvc repro`")
    items: dict[Key, Item] = {}
    for row in test:
        label, speaker, dialogue = (values[of][row] for of in ("label", "speaker", "dialogue"))
        item = Item(*keys[row], label, speaker, dialogue)
        if items.setdefault(keys[row], item) != item:
            raise RunError(
                f"{name}: {keys[row][1]!r} is {items[keys[row]]} and {item}; expected one label, "
                "speaker and dialogue for all seeds: run `dvc repro` to train it again"
            )
    rows = Counter((*keys[row], values["seed"][row]) for row in test)
    # The first of them has the highest count.
    ((fold, id, seed), most), *_ = rows.most_common(1)
    if most > 1:
        raise RunError(
            f"{name}: {id!r} occurs {most} times in fold {fold} of seed {seed}; expected once: "
            "run `dvc repro` to train it again"
        )
    # Only rows of every seed are kept, so that the arrays are rectangular.
    times = Counter(keys[row] for row in test)
    whole = {key: item for key, item in items.items() if times[key] == len(seeds)}
    place = {key: index for index, key in enumerate(whole)}
    kept = np.array([row for row in test if keys[row] in place], np.int64)
    # Indices of seed and item of all kept rows, which fill the arrays at once.
    where = ([seeds.index(values["seed"][row]) for row in kept], [place[keys[row]] for row in kept])
    predictions = np.zeros((len(seeds), len(whole)), np.int64)
    if classes:
        index = {name: number for number, name in enumerate(classes)} | {None: -1}
        predictions[where] = [index[values["prediction"][row]] for row in kept]
    probabilities = np.zeros((*predictions.shape, len(classes)))
    probabilities[where] = numbers.probabilities[kept]

    def by_seed(cells: Floats) -> Floats:
        array = np.zeros((*predictions.shape, cells.shape[1]))
        array[where] = cells[kept]
        return array

    # Truth is the same for all seeds.
    votes = None if numbers.shares is None else by_seed(numbers.shares)[0]
    truth, guessed = by_seed(numbers.truth)[0], by_seed(numbers.values)
    found = PredictedTargets(votes, numbers.attributes, truth, guessed)
    return PredictedRun(
        *(name, classes, seeds, whole, predictions, probabilities),
        incomplete=frozenset(items.keys() - whole.keys()),
        untested=frozenset(
            key for key, split in zip(keys, values["split"], strict=True) if split == "valid"
        ),
        dropped=dropped or {},
        labels=labels,
        whose=whose,
        targets=found,
    )


def known_labels(runs: Sequence[PredictedRun], data: Path = Path("data")) -> dict[str, Label]:
    """Labels of the tested corpus by id; empty if they are not found: transcripts are optional.

    Predictions alone do not name their corpus. So every `labels` folder is tried, those of run
    folders first: the right one has all ids with the same labels.

    Args:
        runs: One or more runs on the same corpus.
        data: Folder of prepared corpora.
    """
    tested = {item.id: item.label for item in runs[0].items.values()}
    beside = [run.labels for run in runs if run.labels is not None]
    for folder in dict.fromkeys([*beside, *sorted(data.glob("*/labels"))]):
        try:
            found = {label.id: label for label in read_labels(folder)}
        except HeronryError:
            continue  # malformed, so of no use for transcripts
        if all(id in found and found[id].label == label for id, label in tested.items()):
            return found
    return {}
