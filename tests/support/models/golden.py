"""Access to the golden vectors: numbers of reference implementations with formula-made weights."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from tests.support.paths import DATA

FOLDER = DATA / "golden"


def golden(name: str) -> dict[str, Any]:
    """The arrays of a .npz file, or the content of a .json file."""
    path = FOLDER / name
    if path.suffix == ".json":
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        return content
    with np.load(path, allow_pickle=False) as arrays:
        return dict(arrays)
