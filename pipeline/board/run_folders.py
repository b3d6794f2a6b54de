"""Rows of trained models that no report here is about, scored from their run folders.

An experiment overwrites reports/ in the workspace, so that the report of a model that `dvc repro`
trained before, such as that of `make run`, is no longer there, and it has no experiment either.
Its run folder holds the predictions all the same, from which the report is computed again.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from features.errors import HeronryError
from pipeline.board.rows import Row, Shown
from pipeline.evaluation.identity import RunIdentity
from pipeline.params.selection import REGIMES
from pipeline.report.metrics_json import DECIMALS
from pipeline.runs.head import read_head

_RUN = "run.json"  # in each run folder
_SECONDS = "train_seconds"


def with_run_folders(shown: Shown, runs: Path, *, score: bool) -> Shown:
    """The same rows, and one for each run folder whose results none of them has.

    Args:
        shown: The rows.
        runs: Folder of run folders, `<regime>/<corpus>/<fusion>`.
        score: Whether to compute their scores, in seconds each; else a line names them.
    """
    known = {(row.regime, row.corpus, row.fusion, row.metrics.get(_SECONDS)) for row in shown.rows}
    rows, lines = [], []
    for path in sorted(runs.glob(f"*/*/*/{_RUN}")):
        folder = path.parent
        regime, corpus, fusion = folder.relative_to(runs).parts
        setting = "" if regime == REGIMES[0] else f" -S regime={regime}"
        remedy = f"`heronry run {fusion} --corpus {corpus}{setting}` makes one"
        try:
            # Two trainings take the same time to the microsecond only by chance.
            seconds = round(read_head(folder)[_SECONDS], DECIMALS)
            if (regime, corpus, fusion, seconds) in known:
                continue
            if score:
                rows.append(_row(folder, f"has no report any more; {remedy}"))
            else:
                lines.append(f"{folder} is trained and has no report here; {remedy}")
        except HeronryError as error:
            lines.append(f"{folder} has no report here; {remedy} (it cannot be scored: {error})")
    return replace(shown, rows=(*shown.rows, *rows), unreported=tuple(lines))


def _row(folder: Path, note: str) -> Row:
    """A run folder's row; `compare` takes its path as its name.

    Raises:
        HeronryError: If it is damaged, or was trained on other labels than those in data/.
    """
    # It imports matplotlib, and most boards have a report of each run.
    from pipeline.report.evaluate import evaluate_any

    labels = Path("data", folder.parent.name, "labels")
    report = evaluate_any(folder, labels)
    whose = RunIdentity.of_run(report.run, report.labels, "")
    return Row(
        *(str(folder), str(folder), whose.run_fusion, whose.run_regime, whose.run_corpus),
        metrics=report.metrics,
        differing={},
        test=tuple(sorted({"corpus": whose.run_corpus, "test": whose.test_sha256}.items())),
        note=note,
    )
