"""Writes README.md of an exported folder: the run's model card, with the model hub's header.

The card is that of the run folder (`pipeline.report.model_card`); here it also has the scores of
the test split with their intervals, the gaps between groups, what the folder holds, and how it
loads. The header follows https://huggingface.co/docs/hub/model-cards; `model-index` holds the same
scores for programs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from pipeline.handover.layout import MODEL, ONNX, PROGRAM, ModelFields
from pipeline.metrics.classes import MONITORS
from pipeline.report.model_card import model_card, plain, table

# The hub's names of metrics that it knows.
HUB_METRICS = {
    "accuracy": "accuracy",
    "uar": "recall",
    "macro_f1": "f1",
    "weighted_f1": "f1",
    "pearson": "pearsonr",
}
OF_VOTES = ("jsd", "kld", "multilabel_macro_f1")
WORDS = {
    "uar": "UAR (recall, mean over classes)",
    "macro_f1": "macro F1",
    "weighted_f1": "weighted F1",
}
PROGRAMS = {
    PROGRAM: "each fusion for `torch.export.load`; its `module()(frames, masks)` takes tensors by "
    "slot, `[B, T, D]` and `[B, T]`, and gives logits",
    ONNX: "the same for an ONNX runtime; inputs are `<slot>` and `<slot>_mask`",
}
LOADING = """\
heronry must be installed, from a clone of its repository: `python -m pip install .` in it.

```python
import pipeline

model = pipeline.load_run("FOLDER")  # this folder: hf download ORG/NAME --local-dir FOLDER
rows = model.predict(["a.wav", "b.wav"], texts=["why would you say that", None])
for row in rows:
    print(row["id"], row.get("prediction"), row["error"])
    print({name: value for name, value in row.items() if name.startswith(("p_", "v_"))})
```"""


@dataclass(frozen=True)
class Facts:
    """What the card says beside run.json.

    Attributes:
        card: card.json of the corpus.
        metrics: Numbers of the report: `pipeline.report.metrics_json`.
        kept: Kept epochs by seed and fold: `pipeline.report.model_card.kept_epochs`.
        licence: The hub's name of the model's licence.
        languages: Codes of the corpus's languages.
        models: The models of the folder.
        programs: Names of the programs that were asked for.
        packages: Releases of the packages it was made with.
    """

    card: Mapping[str, Any]
    metrics: Mapping[str, float]
    kept: Sequence[Sequence[Mapping[str, str]]]
    licence: str
    languages: Sequence[str]
    models: Sequence[ModelFields]
    programs: Sequence[str]
    packages: Mapping[str, str]


def exported_card(head: Mapping[str, Any], facts: Facts) -> str:
    """Text of README.md.

    Args:
        head: Content of run.json.
        facts: The rest.
    """
    more = [
        "## Test",
        _test(head, facts.metrics),
        "## Gaps between groups",
        _gaps(facts.metrics),
        "## Files",
        _files(head, facts),
    ]
    header = yaml.safe_dump(_header(head, facts), sort_keys=False, allow_unicode=True, width=100)
    text = model_card(head, facts.card, facts.kept, more)
    return f"---\n{header}---\n\n{text}\n## Loading\n\n{LOADING}\n"


def main_scores(metrics: Mapping[str, float]) -> list[str]:
    """Keys of the scores of the test split that stand for a run."""
    attributes = [name.removeprefix("rows_") for name in metrics if name.startswith("rows_")]
    names = (*MONITORS, "ccc", *(f"ccc_{name}" for name in attributes), *OF_VOTES)
    return [name for name in names if name in metrics]


def _header(head: Mapping[str, Any], facts: Facts) -> dict[str, Any]:
    names = main_scores(facts.metrics)
    title = facts.card.get("title") or head["corpus"]
    slots = [slot for slot, of in head["slots"].items() if of is not None]
    results = [
        {
            "task": {"type": "audio-classification", "name": "Speech emotion recognition"},
            "dataset": {"type": head["corpus"], "name": str(title), "split": "test"},
            "metrics": [_metric(name, facts.metrics) for name in names],
        }
    ]
    return {
        "license": facts.licence,
        **({"language": list(facts.languages)} if facts.languages else {}),
        "library_name": "heronry",
        "pipeline_tag": "audio-classification",
        "tags": ["speech-emotion-recognition", "heronry", head["kind"], *slots],
        "datasets": [head["corpus"]],
        "metrics": sorted({HUB_METRICS.get(name, name) for name in names}),
        "model-index": [{"name": f"{head['fusion']} on {title}", "results": results}],
    }


def _metric(name: str, metrics: Mapping[str, float]) -> dict[str, Any]:
    found: dict[str, Any] = {
        "type": HUB_METRICS.get(name, name),
        "name": WORDS.get(name, name.replace("_", " ")),
        "value": metrics[name],
    }
    interval = _interval(name, metrics)
    return found | ({"args": {"interval_95": interval}} if interval else {})


def _interval(name: str, metrics: Mapping[str, float]) -> list[float]:
    ends = [metrics.get(f"{name}_{end}") for end in ("low", "high")]
    return [end for end in ends if end is not None]


def _shown(name: str, metrics: Mapping[str, float]) -> list[object]:
    interval = _interval(name, metrics)
    words = f"{interval[0]:.4f} to {interval[1]:.4f}" if len(interval) == 2 else "-"
    return [f"{metrics[name]:.4f}", words]


def _test(head: Mapping[str, Any], metrics: Mapping[str, float]) -> str:
    rows = [
        [WORDS.get(name, name.replace("_", " ")), *_shown(name, metrics)]
        for name in main_scores(metrics)
    ]
    few = (
        ""
        if any("_low" in name for name in metrics)
        else (" There are too few speakers or dialogues for intervals.")
    )
    return (
        f"Mean over the seeds {', '.join(map(str, head['seeds']))} of the scores of "
        f"{metrics['rows']:,.0f} test utterances, with 95 % intervals over speakers or "
        f"dialogues.{few}\n\n" + table(["score", "value", "95 % interval"], rows)
    )


def _gaps(metrics: Mapping[str, float]) -> str:
    rows = [
        [name.replace("_gap_", ": gap by ").replace("_", " "), *_shown(name, metrics)]
        for name in metrics
        if "_gap_" in name and not name.endswith(("_low", "_high"))
    ]
    groups = ("uar_gender_", "uar_session_", "speaker_accuracy_")
    rows += [
        [name.replace("_", " "), *_shown(name, metrics)]
        for name in metrics
        if name.startswith(groups) and not name.endswith(("_low", "_high"))
    ]
    if not rows:
        return (
            "Not measured: the corpus says nothing of its speakers. Gaps by gender, age, accent or "
            "recording may be large."
        )
    return (
        table(["what", "value", "95 % interval"], rows)
        + "\n\nOther gaps (age, accent, language, recording) have not been measured, and may be "
        "larger."
    )


def _files(head: Mapping[str, Any], facts: Facts) -> str:
    return "\n".join(_file_lines(head, facts))


def _file_lines(head: Mapping[str, Any], facts: Facts) -> Iterator[str]:
    temperatures = [
        f"{each.folder} {each.temperature:.3f}"
        for each in facts.models
        if each.temperature is not None
    ]
    yield f"- Models: {', '.join(each.folder for each in facts.models)}; answers are their mean."
    if temperatures:
        yield f"- Temperatures, by which logits are divided: {', '.join(temperatures)}."
    yield f"- `{'`, `'.join(MODEL)}`: each fusion, which heronry loads."
    lacking = {name: why for each in facts.models for name, why in each.lacking.items()}
    for name in facts.programs:
        why = lacking.get(name)
        yield f"- `{name}`: {PROGRAMS[name]}." if why is None else f"- No `{name}`: {plain(why)}"
    weights = (
        "those that were tuned are in `backbones`, others" if head["regime"] == "e2e" else "they"
    )
    yield (
        f"- Weights of the backbones: {weights} are fetched by the checkpoint and revision above, "
        "and must have the hash above."
    )
    yield f"- Made with {', '.join(f'{name} {of}' for name, of in facts.packages.items())}."
