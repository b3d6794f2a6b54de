"""`heronry recipe RECIPE`: run the experiments of a recipe by DVC, but for those that are finished.

Entries that params.yaml lacks are added from the catalogue; those that it has stay as they are.
`--demo` runs the same table on the demo corpus (`pipeline.params.stand_ins`).

An experiment is finished if DVC has one with the same settings of all that it uses, made by the
same code, and the tables of its corpus are those that `prepare` read. Whatever else may differ is
left to DVC, which computes only what it has not computed before.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import typer

from features.arguments import refuse
from features.corpus.entry import corpus_entry
from features.errors import ParamsError
from features.files.writing import replacing
from features.files.yaml_text import read_params_file, read_yaml
from features.settings.locations import corpus_root, root_variable
from pipeline.board.details import read_details
from pipeline.commands.add import with_entries
from pipeline.commands.run import PARAMS, Asked, check_all, run
from pipeline.costs.experiments import cost_lines
from pipeline.params.catalogue.entries import SECTIONS, catalogue_entry, catalogued
from pipeline.params.file import Params, differences
from pipeline.params.recipes import (
    WHAT,
    Recipe,
    arguments,
    command_line,
    known_entry,
    lacking_entries,
    read_recipe,
    recipe_names,
    used_entries,
)
from pipeline.params.recipes import settings as dotted
from pipeline.params.selection import SLOTS, section_problems, selected_section
from pipeline.params.stand_ins import on_demo
from pipeline.report.metrics_json import DETAILS, METRICS
from pipeline.runtime.environment import git
from pipeline.storage.experiments import Experiment, finished, free_name, taken_names
from pipeline.storage.set_params import params_with

# What makes an experiment's numbers besides params.yaml; locks say what DVC computed last.
SOURCES = ("features", "pipeline", "stages", "dvc.yaml", ":(exclude)*dvc.lock")
OTHERS = "published (other data and backbones)"
SCORES = ("valid_macro_f1", "valid_ccc", "valid_jsd", "macro_f1", "ccc", "jsd")  # of each task
ABOUT = (
    "valid_: validation split, by which experiments are chosen; the others: test split, with 95 % "
    "intervals, by which they are reported"
)
LEGEND = (
    "here: whether params.yaml and the catalogue have its entries, and the root of its corpus is "
    "set; `--plan` looks for weights as well, and `--demo` needs neither"
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
        same: Row of the recipe that is the same as an earlier one, whose experiment this is.
    """

    name: str
    settings: tuple[str, ...]
    params: Params
    done: Experiment | None
    published: Mapping[str, float]
    same: str | None = None

    def lines(self) -> str:
        """What is to be done for it, and its settings."""
        if self.same is not None:
            return f"{self.same}: the same as {self.name} with these backbones"
        state = "to run" if self.done is None else "finished"
        return f"{self.name}: {state}\n  {command_line(self.settings)}"


def recipe(name: str, *, plan: bool, demo: bool) -> None:
    """Run the experiments of a recipe that are not finished, and print the scores of all.

    Args:
        name: Name of a file in recipes/, without its suffix.
        plan: Only print what would be added and run, its costs, and what is in the way.
        demo: Take the demo corpus, backbones that every machine has, and short trainings.

    Raises:
        ParamsError: If anything is wrong with an experiment, or neither params.yaml nor the
            catalogue has an entry that it uses; all problems are named before anything runs.
        DvcError: If DVC fails. Experiments that were finished before are kept.
    """
    raw = _params()
    found = on_demo(read_recipe(name), raw) if demo else read_recipe(name)
    added = lacking_entries(found.experiments, raw)
    text = with_entries(PARAMS.read_bytes().decode(), raw, added)
    asked, variants = _variants(found, text)
    problems = ""
    try:
        changed = check_all(variants)
    except ParamsError as error:
        if not plan:
            raise
        changed, problems = [], str(error)
    steps = _steps(found, asked, variants, redo=bool(changed))
    for key, value in found.about.items():
        typer.echo(f"{key}: {value}")
    for line in _entry_lines(found, raw, added, "would add" if plan else "added"):
        typer.echo(line)
    for step in steps:
        typer.echo(step.lines())
    if not plan:
        _run(steps, text, published=OTHERS if demo else "published")
        return
    todo = [step.params for step in steps if step.done is None and step.same is None]
    for line in [*(cost_lines(todo) if todo else []), *([problems] if problems else [])]:
        typer.echo(line)


def list_recipes(word: str) -> None:
    """Print a table of the recipes whose names contain a word.

    Raises:
        ParamsError: If there are none, or one of the files is no recipe.
    """
    raw, names = _params(), recipe_names(word=word)
    if not names:
        raise ParamsError(f"recipe --list: given {word!r}; expected a part of {recipe_names()}")
    rows = [["recipe", "experiments", "adds", "here", "what, and its source"]]
    for found in map(read_recipe, names):
        added = ""
        try:
            lacking = lacking_entries(found.experiments, raw)
            added = f"{len(lacking)} entr{'y' if len(lacking) == 1 else 'ies'}" if lacking else "-"
            roots = _roots(found, raw)
            here = f"no: set {', '.join(roots)}" if roots else "yes"
        except ParamsError as error:
            here = f"no: {error}"
        what = found.about.get(WHAT, "-")
        rows.append([found.name, str(len(found.rows)), added, here, what])
        rows.append(["", "", "", "", found.about["source"]])
    typer.echo("\n".join([*_aligned(rows), LEGEND]))


def _params() -> dict[str, Any]:
    raw = read_params_file(PARAMS)
    refuse(section_problems(raw))
    return raw


def _roots(found: Recipe, raw: Mapping[str, Any]) -> list[str]:
    """Variables of the corpora whose roots are not set, or hold nothing."""
    lacking = []
    for name in dict.fromkeys(
        str(each.get("corpus", raw.get("corpus"))) for each in found.experiments
    ):
        entry = corpus_entry(name, known_entry(raw, "corpora", name), raw["corpora"])
        for each in entry.members or (entry,):
            if each.generated:
                continue
            try:
                corpus_root(each.name)
            except ParamsError:
                lacking.append(root_variable(each.name))
    return lacking


def _run(steps: Sequence[Step], text: str, published: str) -> None:
    """Write params.yaml, run what is not finished, and print the scores of all."""
    if PARAMS.read_bytes() != text.encode():
        with replacing(PARAMS) as temporary:
            temporary.write_bytes(text.encode())
    for step in steps:
        if step.done is None and step.same is None:
            run(Asked(settings=step.settings), name=step.name)
    typer.echo(_table(steps, published))


def _entry_lines(
    found: Recipe, raw: Mapping[str, Any], added: Sequence[tuple[str, str]], verb: str
) -> Iterator[str]:
    """What is added of the catalogue, and what of it params.yaml has with other settings."""
    if added:
        yield f"{verb} {_by_section(added)} to {PARAMS}"
    for section, name in used_entries(found.experiments, raw):
        if name in (raw.get(section) or {}) and name in catalogued(section):
            mine, known = (
                dict(dotted(entry))
                for entry in (known_entry(raw, section, name), catalogue_entry(section, name))
            )
            differing = differences(mine, known)
            if differing:
                yield f"kept {section}.{name} of {PARAMS}, unlike the catalogue's in {differing}"


def _by_section(entries: Sequence[tuple[str, str]]) -> str:
    """Names of entries, such as `model heron_paper, backbones roberta, hubert`."""
    parts = []
    for word, section in SECTIONS.items():
        names = [name for each, name in entries if each == section]
        parts += [f"{word if len(names) == 1 else section} {', '.join(names)}"] if names else []
    return ", ".join(parts)


def _variants(found: Recipe, text: str) -> tuple[list[tuple[str, ...]], list[Params]]:
    """Settings of each experiment, and what they make of params.yaml with this text."""
    raw = read_yaml(text)
    asked = [tuple(arguments(each, raw)) for each in found.experiments]
    variants = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, PARAMS.name)
        path.write_bytes(text.encode())
        for words in asked:
            several = params_with(words, path)
            if len(several) > 1:
                raise ParamsError(
                    f"recipe {found.name}: {command_line(words)} are {len(several)} experiments; "
                    "expected one, and an item of `experiments` for each"
                )
            variants += several
    return asked, variants


def _steps(
    found: Recipe, asked: Sequence[tuple[str, ...]], variants: Sequence[Params], *, redo: bool
) -> list[Step]:
    earlier = [] if redo else [(each, _decides(held)) for each, held in _finished()]
    taken = taken_names()
    steps: list[Step] = []
    for row, words, params in zip(found.rows, asked, variants, strict=True):
        wanted = _decides(vars(params))
        same = [each for each, held in earlier if held == wanted]
        done = same[-1] if same else None
        own = found.experiment_name(row, params.fusion)
        twin = next((step for step in steps if step.settings == words), None)
        if twin is not None:
            steps.append(replace(twin, published=row.published, same=own))
            continue
        name = done.name if done else free_name(own, taken)
        taken.add(name)
        steps.append(Step(name, words, params, done, row.published))
    return steps


def _decides(raw: Mapping[str, Any]) -> dict[str, Any]:
    """What of params.yaml decides the numbers of the selected experiment."""
    if selected_section(raw) != "models":  # what such an entry reads are other runs
        return dict(raw)
    model = known_entry(raw, "models", raw["fusion"])
    slots = [model.get(slot, "none") for slot in (*SLOTS, "asr")]
    heard, theirs = raw.get("asr_backbones") or {}, raw.get("registry") or {}
    sections = ["train"] + ["e2e"] * (raw["regime"] == "e2e")
    sections += ["transcribe"] * any(name in heard for name in slots)
    return {
        **{key: raw.get(key) for key in ("regime", "fusion", "corpus", "seeds")},
        **{key: _written(raw.get(key)) for key in sections},
        "model": model,
        "corpora": {name: known_entry(raw, "corpora", name) for name in _corpora(raw)},
        "backbones": {name: {**raw["backbones"], **heard, **theirs}.get(name) for name in slots},
    }


def _corpora(raw: Mapping[str, Any]) -> list[str]:
    """The selected corpus, and its members if it is a union."""
    return [raw["corpus"], *known_entry(raw, "corpora", raw["corpus"]).get("of", ())]


def _written(value: Any) -> Any:
    """A section without its settings that are null, which are those that it does not have."""
    if not isinstance(value, Mapping):
        return value
    return {key: _written(each) for key, each in value.items() if each is not None}


def _finished() -> Iterator[tuple[Experiment, dict[str, Any]]]:
    """Experiments with scores that the code as it is now made, and their params.yaml."""
    for each in finished():
        # None: exit status 1, there are differences.
        if git("diff", "--quiet", each.commit, "--", *SOURCES) is None:
            continue
        text = git("show", f"{each.commit}:{PARAMS}")
        if text and read_details(each.commit, METRICS):
            yield each, read_yaml(text)


def _table(steps: Sequence[Step], header: str = "published") -> str:
    """Scores of both splits, those of the test split with intervals beside published ones.

    Args:
        steps: Rows; all are finished.
        header: Header of the columns of published scores.
    """
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
    cells = [["experiment"], *([step.same or step.name] for step in steps)]
    for score in scores:
        columns = [[score, *(_score(numbers, score) for _, numbers in rows)]]
        if score in published:
            stated = (step.published.get(score) for step in steps)
            columns += [[header, *("-" if x is None else f"{x:.3f}" for x in stated)]]
        for column in columns:
            for line, cell in zip(cells, column, strict=True):
                line.append(cell)
    return "\n".join([*_aligned(cells), ABOUT])


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table, its columns as wide as their widest cells."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(map(str.ljust, row, widths)).rstrip() for row in rows]


def _score(numbers: dict[str, float], name: str) -> str:
    if name not in numbers:
        return "-"
    low, high = (numbers.get(f"{name}_{end}") for end in ("low", "high"))
    interval = "" if low is None or high is None else f" ({low:.3f} - {high:.3f})"
    return f"{numbers[name]:.3f}{interval}"
