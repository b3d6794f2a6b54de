"""The settings of a run beside their defaults, named by their paths in params.yaml."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import MISSING, asdict, dataclass, fields
from typing import Any

from features.arguments import completed
from features.errors import ParamsError
from features.settings.plugins import load
from pipeline.evaluation.run_folder import RunFolder
from pipeline.params.ensembles import EnsembleEntry
from pipeline.params.speech_llm import SpeechLlmEntry
from pipeline.params.training import TrainParams
from pipeline.params.tuning import LIVE, LoraParams, SlotTuning, TuneParams

NO_DEFAULT = "none"


@dataclass(frozen=True)
class Settings:
    """Settings as rows of a table.

    Attributes:
        changed: Path, value and default of those that are not at their defaults.
        unchanged: Path and value of the others.
    """

    changed: tuple[tuple[str, str, str], ...]
    unchanged: tuple[tuple[str, str], ...]


def settings_of(run: RunFolder, head: Mapping[str, Any]) -> Settings:
    """Compare the settings of a run with the defaults that their constructors have now.

    Args:
        run: The run; the defaults of its model are those of its kind's constructor.
        head: Content of run.json.
    """
    if run.members:
        entry = f"ensembles.{run.fusion}"
        return compared({entry: run.args}, {entry: completed(EnsembleEntry, {})})
    if run.regime == "speech_llm":
        name = f"speech_llms.{run.fusion}"
        usual = {f.name: f.default for f in fields(SpeechLlmEntry) if f.default is not MISSING}
        return compared({name: run.args}, {name: usual})
    model = f"models.{run.fusion}"
    given = [(f"{model}.args", run.args), (f"{model}.inputs", head.get("inputs") or {})]
    given += [("train", run.train), ("e2e", head.get("e2e") or {})]
    defaults = {f"{model}.args": _of_kind(run.kind), "train": asdict(TrainParams())}
    if run.regime == "e2e":
        slots = {slot: asdict(SlotTuning()) for slot in LIVE}
        defaults["e2e"] = asdict(TuneParams()) | {"lora": asdict(LoraParams()), "slots": slots}
    return compared(dict(given), defaults)


def compared(given: Mapping[str, Any], defaults: Mapping[str, Any]) -> Settings:
    """Compare nested settings with nested defaults; one without a default counts as changed.

    >>> compared({"train": {"lr": 0.1, "mixup": 0.0}}, {"train": {"lr": 5e-5, "mixup": 0.0}})
    Settings(changed=(('train.lr', '0.1', '5e-05'),), unchanged=(('train.mixup', '0.0'),))
    """
    values, usual = dict(_leaves(given)), dict(_leaves(defaults))
    return Settings(
        changed=tuple(
            (path, value, usual.get(path, NO_DEFAULT))
            for path, value in values.items()
            if usual.get(path) != value
        ),
        unchanged=tuple(
            (path, value) for path, value in values.items() if usual.get(path) == value
        ),
    )


def _of_kind(kind: str) -> dict[str, Any]:
    """Defaults of the constructor; empty if the plug-in of an older run is no longer there."""
    try:
        # Not a source that DVC's stage depends on: training, which the stage depends on, does.
        return completed(load("pipeline.fusion", kind), {})
    except ParamsError:
        return {}


def _leaves(values: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        path = f"{above}.{name}" if above else name
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, path)
        elif value != {}:
            yield path, json.dumps(value, ensure_ascii=False)
