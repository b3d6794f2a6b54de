"""`heronry prompts qwen2_audio --prompts DIR`: how far a model's scores depend on its prompt.

Each prompt of a folder is one experiment, as `heronry run` makes it; one that DVC has done before
comes from its run cache. The table ends with the spread over the prompts: reports of one model on
one corpus differ by tens of points through the prompt alone, so that the score of one prompt says
little of the model.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import typer

from features.errors import ParamsError
from features.files.csv_text import write_sheet
from features.process.terminal import aligned
from pipeline.commands.run import Asked, run
from pipeline.metrics.classes import MONITORS
from pipeline.params.file import read_params
from pipeline.report.metrics_json import UNPARSED, read_all
from pipeline.speech_llm.prompt import Prompt
from pipeline.storage.experiments import free_name, taken_names

TABLES = Path("reports", "prompts")
CHOSEN_BY = "valid_macro_f1"
COLUMNS = (*MONITORS, UNPARSED, CHOSEN_BY)
_NAME = re.compile(r"[A-Za-z0-9_./+-]+")
_ANY = ("one", "another")  # classes, where only the file is to be checked


@dataclass(frozen=True)
class Prompted:
    """An experiment with one prompt.

    Attributes:
        prompt: Path of its file.
        sha256: SHA-256 of the file.
        experiment: Name of the experiment.
        scores: Number by column; a corpus without validation rows lacks the last.
    """

    prompt: str
    sha256: str
    experiment: str
    scores: Mapping[str, float]


def prompts(name: str, folder: Path, *, corpus: str | None = None) -> None:
    """Run an entry of `speech_llms` with each prompt of a folder, and print the spread.

    Args:
        name: Entry of `speech_llms`.
        folder: Folder of prompts, `*.txt`.
        corpus: Entry of `corpora`; None: that of params.yaml.

    Raises:
        ParamsError: If the folder holds fewer than two prompts, or anything is wrong with one.
    """
    params = read_params(Path("params.yaml"))
    params.speech_llm(name)
    paths = sorted(folder.glob("*.txt"))
    if len(paths) < 2:
        raise ParamsError(
            f"--prompts {folder}: holds {len(paths)} files *.txt; expected two or more prompts, as "
            "in stages/speech_llm/prompts"
        )
    odd = [path.as_posix() for path in paths if not _NAME.fullmatch(path.as_posix())]
    if odd:
        raise ParamsError(
            f"--prompts {folder}: given {odd[:5]}; expected letters, digits and _ . / + - alone, "
            "since experiments get these names: rename them"
        )
    hashes = {path: Prompt.read(path.as_posix(), _ANY).sha256 for path in paths}
    about = corpus or params.corpus
    found = []
    for path in paths:
        setting = f"speech_llms.{name}.prompt={path.as_posix()}"
        experiment = free_name(f"{name}-{about}-prompt-{path.stem}", taken_names())
        run(Asked(name, about, settings=(setting,)), name=experiment)
        numbers = read_all(Path("reports"))
        scores = {key: float(numbers[key]) for key in COLUMNS if key in numbers}
        found.append(Prompted(path.as_posix(), hashes[path], experiment, scores))
    typer.echo("\n".join(table(found)))
    out = TABLES / f"{name}-{about}.csv"
    write_table(out, found)
    typer.echo(f"{out}: the table")


def table(found: Sequence[Prompted]) -> list[str]:
    """Lines of the table: a prompt each, then highest, lowest and their distance in points."""
    columns = _columns(found)
    rows = [["prompt", *columns, "experiment"]]
    for each in found:
        shown = [f"{each.scores[column]:.3f}" for column in columns]
        rows.append([Path(each.prompt).name, *shown, each.experiment])
    for title, of in (("highest", max), ("lowest", min), ("mean", statistics.fmean)):
        rows.append([title, *(f"{of(_values(found, each)):.3f}" for each in columns), ""])
    rows.append(["spread, points", *(f"{_spread(found, each):.1f}" for each in columns), ""])
    note = (
        f"the spread is the highest minus the lowest, times 100. Choose a prompt by {CHOSEN_BY}: "
        "the best of several by its test score is partly luck"
    )
    return [*aligned(rows), note]


def write_table(path: Path, found: Sequence[Prompted]) -> None:
    """Write a row for each prompt, unrounded, with the SHA-256 of its file."""
    columns = _columns(found)
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [
        [each.prompt, each.sha256, *(each.scores[column] for column in columns), each.experiment]
        for each in found
    ]
    write_sheet(path, ("prompt", "sha256", *columns, "experiment"), rows)


def _columns(found: Sequence[Prompted]) -> list[str]:
    return [each for each in COLUMNS if all(each in of.scores for of in found)]


def _values(found: Sequence[Prompted], column: str) -> list[float]:
    return [each.scores[column] for each in found]


def _spread(found: Sequence[Prompted], column: str) -> float:
    values = _values(found, column)
    return 100 * (max(values) - min(values))
