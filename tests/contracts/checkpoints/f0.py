"""Estimators of f0; the network's weights are the formula-made ones of the golden vectors."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tests.support.models.golden import golden
from tests.support.models.golden_fill import fill


def golden_weights() -> dict[str, Tensor]:
    """RMVPE's 741 tensors under their public names, as the golden vectors were made with."""
    listed = golden("rmvpe_keys.json")
    public = {
        entry["key"]: torch.zeros(
            entry["shape"],
            dtype=getattr(torch, entry["dtype"]),
            device="cpu" if entry["dtype"] == "int64" else "meta",  # counters are kept as they are
        )
        for entry in listed["parameters"]
    }
    return {key: torch.from_numpy(v) for key, v in fill(public, listed["salt"]).items()}


def _rmvpe(folder: Path) -> dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "rmvpe.pt"
    torch.save(golden_weights(), path)
    return {"method": "rmvpe", "checkpoint": str(path)}


VARIANTS: dict[str, Callable[[Path], dict[str, Any]]] = {
    "harvest": lambda _: {"method": "harvest"},
    "dio": lambda _: {"method": "dio", "bins": 512, "unvoiced": "bin0"},
    "log_hz": lambda _: {"method": "dio", "values": "log_hz"},
    "rmvpe": _rmvpe,
}


SLOW = {"rmvpe"}  # the network has 90 million parameters
