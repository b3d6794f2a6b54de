"""Writes `model_card.md` beside run.json: a description of the trained model.

Everything in it comes from run.json, the corpus card and history.csv; seconds are left out, so that
equal trainings have equal cards. The form follows Mitchell et al., Model Cards for Model Reporting
(arXiv 1810.03993), shortened. Test scores belong to the report, which has their intervals.
"""

from __future__ import annotations

import csv
import json
import re
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from features.files.reading import open_text
from features.files.records import read_json
from pipeline.metrics.classes import MONITORS
from pipeline.params.training import LAST
from pipeline.runs.head import stand_ins

NAME = "model_card.md"
UNKNOWN = "not stated"
# An underscore within a word is no emphasis.
_SIGNS = re.compile(r"[\\`*\[\]<>|$~&]|(?<!\w)_|_(?!\w)")
USE = (
    "It is meant for research on speech emotion recognition, on utterances like those of its "
    "corpus, whose labels tell what was acted or perceived and not what somebody felt. How it does "
    "with other speakers, languages, cultures and recordings has not been measured, and it is not "
    "meant for decisions about people."
)


def write_model_card(out: Path, card: Mapping[str, Any]) -> None:
    """Write the card into a complete run folder.

    Args:
        out: `runs/<regime>/<corpus>/<fusion>`, with its run.json.
        card: Content of the corpus's card.json.
    """
    run = read_json(out / "run.json")
    if run.get("members"):
        (out / NAME).write_text(ensemble_card(run, card), encoding="utf-8")
        return
    text = model_card(run, card, [kept_epochs(out, seed, run["folds"]) for seed in run["seeds"]])
    (out / NAME).write_text(text + loading(out, run), encoding="utf-8")


def kept_epochs(out: Path, seed: int, folds: int) -> list[dict[str, str]]:
    """The row of history.csv whose weights were kept, for each fold of a seed."""
    kept = []
    for fold in range(folds):
        path = out / f"seed_{seed}" / f"fold_{fold}" / "history.csv"
        with open_text(path) as file:
            kept += [row for row in csv.DictReader(file) if row["best"] == "1"]
    return kept


def model_card(
    run: Mapping[str, Any],
    card: Mapping[str, Any],
    kept: Sequence[Sequence[Mapping[str, str]]],
    more: Sequence[str] = (),
) -> str:
    """The card without the instructions for loading.

    Args:
        run: Content of run.json.
        card: Content of card.json; a missing key is shown as not stated.
        kept: For each seed, the kept row of history.csv of each fold.
        more: Headings and sections that come before the limits.
    """
    title = card.get("title") or run["corpus"]
    sections = [
        f"# {run['fusion']} on {plain(title)}",
        f"A `{run['kind']}` model (regime `{run['regime']}`, entry `{run['fusion']}` of `models`) "
        f"with {run['parameters']:,} trainable parameters that {_purpose(run)}. "
        f"Trainings: {len(run['seeds']) * run['folds']} (seeds: "
        f"{', '.join(map(str, run['seeds']))}; folds: {run['folds']}).",
        "## Data",
        _data(run, card),
        "## Inputs",
        _slots(run),
        "## Training",
        _settings(run),
        "## Validation",
        _of_validation(run["train"]["monitor"]),
        _scores(run, kept),
        *more,
        "## Use and limits",
        USE,
    ]
    return "\n\n".join(sections) + "\n"


def ensemble_card(run: Mapping[str, Any], card: Mapping[str, Any]) -> str:
    """The card of an ensemble; arguments as of `model_card`."""
    args = run["args"]
    rows = [
        [name, len(of["seeds"]), f"{of['parameters']:,}", " ".join(map(str, of["weights"]))]
        for name, of in run["members"].items()
    ]
    sections = [
        f"# {run['fusion']} on {plain(card.get('title') or run['corpus'])}",
        f"An ensemble of finished runs (entry `{run['fusion']}` of `ensembles`; method "
        f"{args['method']}, search {args['search']}) that {_purpose(run)}.",
        "## Data",
        _data(run, card),
        "## Members",
        table(["member", "seeds", "parameters", "counts, by fold"], rows),
        "It has no weights of its own: it was made of its members' saved predictions, the seeds of "
        "each averaged. A member that counts 0 was left out by the search.",
        "## Use and limits",
        USE,
    ]
    return "\n\n".join(sections) + "\n"


def _of_validation(monitor: str) -> str:
    """What the scores of the validation split are of."""
    if monitor == LAST:
        return (
            "Of the last epoch, which is kept whatever they are; the report has those of the test "
            "split. Means over the folds."
        )
    return (
        f"Of the epochs with the best {monitor} on the validation split: chosen by these scores, "
        "they flatter the model, and the report has those of the test split. Means over the folds."
    )


def loading(out: Path, run: Mapping[str, Any]) -> str:
    """Instructions for loading the model of the first seed and fold."""
    folder = (out / f"seed_{run['seeds'][0]}" / "fold_0").as_posix()
    return (
        "\n## Loading\n\n```python\n"
        "from pathlib import Path\n"
        "from pipeline.model.checkpoint import load_model\n"
        f"model, classes = load_model(Path({json.dumps(folder)}))\n"
        "```\n"
    )


def _purpose(run: Mapping[str, Any]) -> str:
    """What the model does, by its targets."""
    targets = run.get("targets") or {"tasks": ["classes"], "attributes": {}}
    names = ", ".join(map(plain, run["classes"]))
    found = []
    if "classes" in targets["tasks"]:
        found.append(f"tells {len(run['classes'])} emotions apart: {names}")
    if "votes" in targets["tasks"]:
        found.append(f"predicts how raters' votes divide among {names}")
    scales = [
        f"{plain(a)} ({low:g} to {high:g})" for a, (low, high) in targets["attributes"].items()
    ]
    if scales:
        found.append(f"predicts {', '.join(scales)}")
    if "gender" in targets["tasks"]:
        found.append("predicts the speaker's gender")
    return ", and ".join(found)


def _data(run: Mapping[str, Any], card: Mapping[str, Any]) -> str:
    alone = f" (fold {card['fold']} alone)" if "fold" in card else ""
    stated = {
        "Corpus": f"{plain(card.get('title'))} (`{run['corpus']}`)",
        "Licence": plain(card.get("licence")),
        "Citation": plain(card.get("citation")),
        "Note": plain(card["disclaimer"]) if card.get("disclaimer") else None,
        "Protocol": f"{plain(card.get('protocol'))}, folds: {run['folds']}{alone}",
        "Utterances": f"{run['utterances']:,} in all splits; {len(run['dropped']):,} without "
        "features in some slot were left out",
    }
    lines = [f"- {name}: {value}" for name, value in stated.items() if value is not None]
    counts = card.get("counts") or []
    for fold, by_split in enumerate(counts):
        sums = [f"{split} {sum(classes.values()):,}" for split, classes in by_split.items()]
        lines.append(f"- Labelled in fold {fold}: {', '.join(sums)}")
    return "\n".join(lines)


def _slots(run: Mapping[str, Any]) -> str:
    columns = ("kind", "checkpoint", "revision", "layer", "pooling", "weights_sha256")
    rows = [
        [slot, found["backbone"], *(found["provenance"].get(column, "-") for column in columns)]
        for slot, found in run["slots"].items()
        if found is not None
    ]
    text = table(["slot", "backbone", *columns], rows)
    if stand_ins(run):
        text += f"\n\nStand-ins: {plain(stand_ins(run))}."
    if run.get("inputs"):
        text += f"\n\nBefore the model: {code(json.dumps(run['inputs']))}."
    return text


def _settings(run: Mapping[str, Any]) -> str:
    both = (("Constructor", run["args"]), ("Protocol", run["train"]))
    lines = []
    for title, values in both:
        lines.append(f"- {title}: {code(json.dumps(values)) if values else 'defaults'}")
    return "\n".join(lines)


def _scores(run: Mapping[str, Any], kept: Sequence[Sequence[Mapping[str, str]]]) -> str:
    rows = []
    columns = [name for folds in kept for row in folds for name in row]
    metrics = list(MONITORS)
    if run.get("targets"):
        shown = dict.fromkeys(name for name in columns if name.startswith("valid_"))
        metrics = [name.removeprefix("valid_") for name in shown if not name.endswith("_loss")]
    for seed, folds in zip(run["seeds"], kept, strict=True):
        epochs = sorted(int(row["epoch"]) for row in folds)
        span = f"{epochs[0]}" if epochs[0] == epochs[-1] else f"{epochs[0]} to {epochs[-1]}"
        # A metric that is undefined in an epoch has an empty cell.
        means = [
            statistics.fmean(float(row[f"valid_{name}"] or "nan") for row in folds)
            for name in metrics
        ]
        rows.append([seed, span, *(f"{mean:.4f}" for mean in means)])
    return table(["seed", "epoch", *metrics], rows)


def table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(plain(cell) for cell in line) + " |" for line in lines)


def plain(value: object) -> str:
    """A value in one line as plain text: Markdown, HTML and ends of cells are escaped."""
    text = UNKNOWN if value is None or value == "" else str(value)
    return _SIGNS.sub(r"\\\g<0>", " ".join(text.split()))


def code(text: str) -> str:
    """Text as code, between more backticks than it holds in a row."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence, space = "`" * (longest + 1), " " if longest else ""
    return f"{fence}{space}{text}{space}{fence}"
