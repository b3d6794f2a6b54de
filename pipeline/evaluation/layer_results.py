"""Reads what a run folder holds about layers: probes of hidden states, and learned mixes of them.

Shapes: N rows of predictions.csv, L hidden states.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from features.errors import RunError
from features.files.reading import check_regular
from pipeline.metrics.classes import Floats
from pipeline.runs.layout import LAYERS
from pipeline.runs.tables import AGAIN, Table, read_csv

_BEFORE, _WEIGHTS, _SCALE = "inputs.mixes.", ".weights", ".scale"
"""Names of a mix's tensors (`pipeline.model.inputs.LayerMix`)."""


@dataclass(frozen=True)
class Mix:
    """How a trained model mixes the L hidden states of a slot: gamma * sum_l shares_l h_l.

    Attributes:
        shares: `[L]`, softmax of the learned weights, in stored order.
        scale: gamma.
    """

    shares: Floats
    scale: float


def read_layers(
    path: Path, predictions: Table, classes: Sequence[str]
) -> dict[str, dict[int, NDArray[np.int64]]]:
    """Classes `[N]` that probes predict, by slot and number of a state; {} without layers.csv.

    Args:
        path: layers.csv, which the folders of the first seed may have.
        predictions: predictions.csv beside it.
        classes: Class names.

    Raises:
        RunError: If it is malformed, or its rows are not those of predictions.csv.
    """
    if not path.exists():
        return {}
    table = read_csv(path, None)
    states = [name.rpartition("_") for name in table.header[len(LAYERS) :]]
    wrong = [f"{slot}_{number}" for slot, _, number in states if not (slot and number.isdecimal())]
    if table.header[: len(LAYERS)] != LAYERS or wrong:
        raise RunError(
            f"{path}: columns {list(table.header)}; expected {list(LAYERS)}, then "
            f"<slot>_<number of a layer>: {AGAIN}"
        )
    for name in LAYERS:
        if table.column(name) != predictions.column(name):
            raise RunError(
                f"{path}: {name} of its rows is not that of {predictions.path.name}: {AGAIN}"
            )
    found: dict[str, dict[int, NDArray[np.int64]]] = {}
    for slot, _, number in states:
        found.setdefault(slot, {})[int(number)] = table.indices(f"{slot}_{number}", classes)
    return found


def read_mixes(folder: Path) -> dict[str, Mix]:
    """Mixes by slot of the model in the folder of a seed and fold; {} if it has none, or no model.

    Raises:
        RunError: If the file of the weights cannot be read.
    """
    path, found = folder / "model.safetensors", {}
    if not path.exists():
        return {}
    try:
        check_regular(path)
        with safe_open(path, framework="np") as file:
            for name in sorted(file.keys()):
                if name.startswith(_BEFORE) and name.endswith(_WEIGHTS):
                    slot = name.removeprefix(_BEFORE).removesuffix(_WEIGHTS)
                    scale = file.get_tensor(f"{_BEFORE}{slot}{_SCALE}")
                    found[slot] = Mix(_softmax(file.get_tensor(name)), float(scale))
    except (OSError, SafetensorError) as error:
        raise RunError(f"cannot read {path} ({error}): {AGAIN}") from error
    return found


def _softmax(weights: Floats) -> Floats:
    # Not that of scipy, whose import takes longer than `heronry check` without it.
    powers = np.exp(weights.astype(np.float64) - weights.max())
    shares: Floats = powers / powers.sum()
    return shares
