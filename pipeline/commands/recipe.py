"""`heronry recipe RECIPE`: run the experiments of a recipe by DVC, but for those that are finished.

An experiment is finished if DVC has one with the same params.yaml, made by the same code, and the
tables of its corpus are those that `prepare` read. Whatever else may differ is left to DVC, which
computes only what it has not computed before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import typer

from features.arguments import in_lines, refuse
from features.errors import ParamsError
from features.files.yaml_text import read_params_file, read_yaml
from pipeline.board.details import read_details
from pipeline.commands.run import PARAMS, Asked, check_all, run
from pipeline.params.file import Params
from pipeline.params.recipes import Recipe, arguments, command_line, lacking_entries, read_recipe
from pipeline.params.selection import section_problems
from pipeline.report.metrics_json import DETAILS, METRICS
from pipeline.runtime.environment import git
from pipeline.storage.experiments import Experiment, finished, free_name, taken_names
from pipeline.storage.set_params import params_with

# What makes an experiment's numbers besides params.yaml; locks say what DVC computed last.
SOURCES = ("features", "pipeline", "stages", "dvc.yaml", ":(exclude)*dvc.lock")
SCORES = ("valid_macro_f1", "valid_ccc", "valid_jsd", "macro_f1", "ccc", "jsd")  # of each task
ABOUT = (
    "valid_: validation split, by which experiments are chosen; the others: test split, with 95 % "
    "intervals, by which they are reported"
)


@dataclass(frozen=True)
class Step:
    """An experiment of a recipe.

    Attributes:
        name: Name that it has, or gets when it is run.
        settings: Arguments of `-S`.
        params: params.yaml under these.
        done: The finished experiment, if there is one.
        published: Scores of its source.
    """

    name: str
    settings: tuple[str, ...]
    params: Params
    done: Experiment | None
    published: Mapping[str, float]


def recipe(name: str, *, plan: bool) -> None:
    """Run the experiments of a recipe that are not finished, and print the scores of all.

    Args:
        name: Name of a file in recipes/, without its suffix.
        plan: Only print what would be run.

    Raises:
        ParamsError: If params.yaml lacks an entry that the recipe names, or anything else is wrong
            with an experiment; all problems are named before anything runs.
        DvcError: If DVC fails. Experiments that were finished before are kept.
    """
    found = read_recipe(name)
    steps = _steps(found)
    for key, value in found.about.items():
        typer.echo(f"{key}: {value}")
    for step in steps:
        state = "to run" if step.done is None else "finished"
        typer.echo(f"{step.name}: {state}\n  {command_line(step.settings)}")
    if plan:
        return
    for step in steps:
        if step.done is None:
            run(Asked(settings=step.settings), name=step.name)
    typer.echo(_table(steps))


def _steps(found: Recipe) -> list[Step]:
    raw = read_params_file(PARAMS)
    refuse(section_problems(raw))
    lacking = lacking_entries(found.experiments, raw)
    if lacking:
        raise ParamsError(f"recipe {found.name} needs what {PARAMS} lacks:\n{in_lines(lacking)}")
    asked = [tuple(arguments(each, raw)) for each in found.experiments]
    variants = [_one(found.name, words) for words in asked]
    changed = check_all(variants)
    earlier = [] if changed else list(_finished())
    taken = taken_names()
    steps = []
    for row, words, params in zip(found.rows, asked, variants, strict=True):
        # A key that the experiment's params.yaml lacks is one that has a default.
        same = [each for each, held in earlier if {**vars(params), **held} == vars(params)]
        done = same[-1] if same else None
        name = done.name if done else free_name(found.experiment_name(row, params.fusion), taken)
        taken.add(name)
        steps.append(Step(name, words, params, done, row.published))
    return steps


def _one(name: str, words: Sequence[str]) -> Params:
    variants = params_with(words)
    if len(variants) > 1:
        raise ParamsError(
            f"recipe {name}: {command_line(words)} are {len(variants)} experiments; expected one, "
            "and an item of `experiments` for each"
        )
    return variants[0]


def _finished() -> Iterator[tuple[Experiment, dict[str, object]]]:
    """Experiments with scores that the code as it is now made, and their params.yaml."""
    for each in finished():
        # None: exit status 1, there are differences.
        if git("diff", "--quiet", each.commit, "--", *SOURCES) is None:
            continue
        text = git("show", f"{each.commit}:{PARAMS}")
        if text and read_details(each.commit, METRICS):
            yield each, read_yaml(text)


def _table(steps: Sequence[Step]) -> str:
    """Scores of both splits, those of the test split with intervals beside published ones."""
    made = {each.name: each for each in finished()}
    published = list(dict.fromkeys(score for step in steps for score in step.published))
    rows = []
    for step in steps:
        commit = (step.done or made[step.name]).commit
        # Numbers that are not among the headline scores are asked for by a recipe alone.
        files = (METRICS, DETAILS) if set(published) - set(SCORES) else (METRICS,)
        rows.append((step, {k: v for file in files for k, v in read_details(commit, file).items()}))
    scores = [score for score in SCORES if any(score in numbers for _, numbers in rows)]
    scores += [score for score in published if score not in scores]
    cells = [["experiment"], *([step.name] for step in steps)]
    for score in scores:
        columns = [[score, *(_score(numbers, score) for _, numbers in rows)]]
        if score in published:
            stated = (step.published.get(score) for step in steps)
            columns += [["published", *("-" if x is None else f"{x:.3f}" for x in stated)]]
        for column in columns:
            for line, cell in zip(cells, column, strict=True):
                line.append(cell)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    lines = ["  ".join(map(str.ljust, row, widths)).rstrip() for row in cells]
    return "\n".join([*lines, ABOUT])


def _score(numbers: dict[str, float], name: str) -> str:
    if name not in numbers:
        return "-"
    low, high = (numbers.get(f"{name}_{end}") for end in ("low", "high"))
    interval = "" if low is None or high is None else f" ({low:.3f} - {high:.3f})"
    return f"{numbers[name]:.3f}{interval}"
