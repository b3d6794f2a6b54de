"""Weights & Biases: a run for each training and report; with WANDB_MODE=offline, in tracking/."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from features.files.writing import make_folder
from pipeline.tracking import Tracked

PROJECT = "heronry"  # unless WANDB_PROJECT is set


class WandbRun:
    """A run of W&B in the group of its settings; neither source files nor the terminal are sent.

    Args:
        tracked: What is shown.
    """

    package = "wandb"

    def __init__(self, tracked: Tracked) -> None:
        import wandb

        make_folder(tracked.folder)
        self._artifact: Any = wandb.Artifact
        self._run: Any = wandb.init(
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            group=tracked.group,
            name=tracked.title,
            config={**tracked.settings, "experiment": tracked.experiment},
            dir=os.environ.get("WANDB_DIR") or str(tracked.folder),
            # Progress lines that are redrawn would be sent line by line.
            settings=wandb.Settings(console="off", silent=True, save_code=False),
        )

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Send numbers."""
        self._run.log(dict(values), step=step)

    def attach(self, page: Path) -> None:
        """Send the page as an artifact, whose versions are those of reports on these settings."""
        artifact = self._artifact(self._run.group.replace("/", "-"), type="report")
        artifact.add_file(str(page))
        self._run.log_artifact(artifact)

    def close(self, *, failed: bool) -> None:
        """End the run as finished or failed."""
        self._run.finish(exit_code=int(failed))


build = WandbRun
