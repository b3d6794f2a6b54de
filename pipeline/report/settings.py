"""The training settings of a run beside their defaults."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from pipeline.params.training import TrainParams


@dataclass(frozen=True)
class TrainingSettings:
    """Settings as rows of a table.

    Attributes:
        changed: Name, value and default of those that are not at their defaults.
        unchanged: Name and value of the others.
    """

    changed: tuple[tuple[str, str, str], ...]
    unchanged: tuple[tuple[str, str], ...]


def training(train: Mapping[str, Any]) -> TrainingSettings:
    """Compare `train` of run.json with the defaults; a setting without one counts as changed."""
    defaults = {field.name: _text(field.default) for field in fields(TrainParams)}
    values = {name: _text(value) for name, value in train.items()}
    return TrainingSettings(
        changed=tuple(
            (name, value, defaults.get(name, "none"))
            for name, value in values.items()
            if defaults.get(name) != value
        ),
        unchanged=tuple(
            (name, value) for name, value in values.items() if defaults.get(name) == value
        ),
    )


def _text(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
