"""A small XEUS: of ESPnet's own layers where it is installed, else of its stand-in's."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import yaml

from tests.support.models import espnet_stand_in


def repository(folder: Path) -> dict[str, Any]:
    """Laid out as the public repository, wrapped as DeepSpeed saves it."""
    espnet_stand_in.install()
    inner = folder / "model"
    inner.mkdir(parents=True, exist_ok=True)
    config = inner / "config.yaml"
    config.write_text(yaml.safe_dump(espnet_stand_in.CONFIG), encoding="utf-8")
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")  # ESPnet's imports
        torch.manual_seed(0)
        task = importlib.import_module("espnet2.tasks.ssl").SSLTask
        network, _ = task.build_model_from_file(str(config), None, "cpu")
    torch.save({"module": network.state_dict()}, inner / "xeus_checkpoint_new.pth")
    return {"checkpoint": str(folder)}


VARIANTS: dict[str, Callable[[Path], dict[str, Any]]] = {"repository": repository}
