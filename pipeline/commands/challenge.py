"""`heronry challenge RUN --task 2`: a run's predictions as a file of the MSP-Podcast challenge.

Tasks of Interspeech 2025 (SERNC): 1 is `FileName,EmoClass`, a letter of eight classes, 2 is
`FileName,EmoAct,EmoVal,EmoDom`, arousal, valence and dominance from 1 to 7. The rules page does not
show the form; this is what participants' code writes (docs/papers.md). Rows are those of the split
`unlabelled`, which is predicted and never scored, sorted by FileName; probabilities and values are
averaged over all seeds and folds.

Shapes: J jobs (a seed and a fold each), N utterances, K classes, A attributes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import typer
from numpy.typing import NDArray

from features.corpora.msp_podcast import EMOTIONS
from features.corpus.manifest import UNLABELLED, read_labels
from features.errors import RunError
from features.files.csv_text import write_csv
from features.files.reading import file_sha256
from features.files.writing import replacing
from pipeline.runs.head import read_head
from pipeline.runs.layout import Columns
from pipeline.runs.tables import AGAIN, Table, read_csv

LETTERS = {name: letter for letter, name in EMOTIONS.items()}
OTHER = "other"  # the ninth class of some models, which the challenge's test set does not have
ATTRIBUTES = {"EmoAct": "arousal", "EmoVal": "valence", "EmoDom": "dominance"}
LOW, HIGH = 1.0, 7.0
FILE = f"{UNLABELLED}.csv"
SUFFIX = ".wav"

Floats = NDArray[np.float64]


def challenge(run: Path, *, task: int, out: Path) -> None:
    """Write the predictions of the unlabelled utterances, and print what they are like.

    Args:
        run: Run folder.
        task: 1: classes. 2: attributes.
        out: File to write.

    Raises:
        RunError: If the run has no such predictions, lacks some, or has some twice; if it does not
            predict what the task asks for, or a value is not on the scale of 1 to 7.
    """
    head = read_head(run)
    columns = Columns.of(head)
    check = _check_classes if task == 1 else _check_attributes
    check(run, head)
    tables = [_read(run, head, columns, job) for job in _jobs(head)]
    names = _file_names(run, head["corpus"], tables)
    if task == 1:
        header, cells, summary = ["EmoClass"], *_classes(tables, head["classes"])
    else:
        header, cells, summary = list(ATTRIBUTES), *_attributes(tables)
    with replacing(out) as temporary:
        rows = sorted([name, *row] for name, row in zip(names, cells, strict=True))
        write_csv(temporary, ["FileName", *header], rows)
    typer.echo(f"{len(names)} utterances, mean of {len(tables)} trained models: {out}")
    typer.echo(summary)


def _jobs(head: Mapping[str, Any]) -> list[str]:
    return [f"seed_{seed}/fold_{fold}" for seed in head["seeds"] for fold in range(head["folds"])]


def _check_classes(run: Path, head: Mapping[str, Any]) -> None:
    odd = [name for name in head["classes"] if name not in LETTERS and name != OTHER]
    if odd or not head["classes"]:
        given = f"the classes {head['classes']}" if odd else "no classes"
        raise RunError(f"{run} predicts {given}; expected those of task 1, {list(LETTERS)}")


def _check_attributes(run: Path, head: Mapping[str, Any]) -> None:
    scales = (head.get("targets") or {}).get("attributes", {})
    lacking = [name for name in ATTRIBUTES.values() if name not in scales]
    if lacking:
        raise RunError(
            f"{run} does not predict {', '.join(lacking)}; expected the attributes of task 2, "
            f"{list(ATTRIBUTES.values())}: train it with `train.targets: [attributes]`"
        )
    for name in ATTRIBUTES.values():
        low, high = scales[name]
        if (low, high) != (LOW, HIGH):
            raise RunError(
                f"{run} predicts {name} from {low:g} to {high:g}; expected the scale of task 2, "
                f"{LOW:g} to {HIGH:g}: train it on such a corpus"
            )


def _read(run: Path, head: Mapping[str, Any], columns: Columns, job: str) -> Table:
    name = f"{job}/{FILE}"
    if not (run / name).is_file():
        raise RunError(
            f"{run / name} is not there; expected predictions of utterances whose split is "
            f"`{UNLABELLED}`: {run.name} was trained on a corpus that has none (docs/targets.md)"
        )
    if head.get("files", {}).get(name) != file_sha256(run / name):
        raise RunError(f"{run / name} is not as training wrote it: {AGAIN}")
    table = read_csv(run / name, columns.predictions)
    table.only("split", (UNLABELLED,))
    return table


def _file_names(run: Path, corpus: str, tables: Sequence[Table]) -> list[str]:
    """FileName of each row; each is in every table, in the same order, and once.

    Raises:
        RunError: Otherwise; or if a row of the corpus is not among them.
    """
    ids = tables[0].column("id")
    for table in tables[1:]:
        if table.column("id") != ids:
            raise RunError(
                f"{table.path} and {tables[0].path} hold different utterances; expected the same "
                f"of all seeds and folds: {AGAIN}"
            )
    names = [id if id.endswith(SUFFIX) else id + SUFFIX for id in ids]
    name, times = Counter(names).most_common(1)[0]
    if times > 1:
        raise RunError(f"{tables[0].path}: FileName {name!r} occurs {times} times; expected once")
    project = run.absolute().parents[3]  # <project>/runs/<regime>/<corpus>/<fusion>
    folder = project / "data" / corpus / "labels"
    wanted = [label.id for label in read_labels(folder) if UNLABELLED in label.splits]
    missing = sorted(set(wanted) - set(ids))
    if missing:
        raise RunError(
            f"{run} lacks predictions of {len(missing)} unlabelled utterances of {folder}, such as "
            f"{missing[:5]}; expected all {len(wanted)}: rejected.csv and run.json say why"
        )
    return names


def _classes(tables: Sequence[Table], classes: Sequence[str]) -> tuple[list[list[str]], str]:
    """Letter of the class with the highest mean probability, `[N, 1]`, and how many of each."""
    mean = np.mean([table.probabilities(classes) for table in tables], 0)
    own = [number for number, name in enumerate(classes) if name in LETTERS]
    chosen = [LETTERS[classes[own[best]]] for best in mean[:, own].argmax(1)]
    counts = Counter(chosen).most_common()
    return [[letter] for letter in chosen], ", ".join(f"{name} {count}" for name, count in counts)


def _attributes(tables: Sequence[Table]) -> tuple[list[list[str]], str]:
    """Mean values `[N, 3]` with six decimals, as the corpus has them, and their statistics."""
    columns = []
    for name in ATTRIBUTES.values():
        found = np.stack([_on_scale(table, f"v_{name}") for table in tables])
        columns.append(found.mean(0))
    shown = [
        f"{name} {values.mean():.2f} (sd {values.std():.2f})"
        for name, values in zip(ATTRIBUTES, columns, strict=True)
    ]
    cells = [[f"{value:.6f}" for value in row] for row in zip(*columns, strict=True)]
    return cells, ", ".join(shown)


def _on_scale(table: Table, column: str) -> Floats:
    values = table.numbers(column)
    # Every comparison with NaN is false, so that NaN is refused too.
    for index in np.flatnonzero(~((values >= LOW) & (values <= HIGH))).tolist():
        table.refuse(index, f"{column} is {values[index]:g}; expected {LOW:g} to {HIGH:g}")
    return values
