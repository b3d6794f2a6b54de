"""TensorBoard: event files in tracking/tensorboard, shown by `tensorboard --logdir` of it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipeline.tracking import Tracked


class EventFiles:
    """Event files of a training or report: scalars, and the settings as a table.

    Args:
        tracked: What is shown.
    """

    package = "tensorboard"

    def __init__(self, tracked: Tracked) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._folder = tracked.folder / "tensorboard" / tracked.group / tracked.name
        # All event files of a folder are drawn as one curve: an earlier training would be in it.
        shutil.rmtree(self._folder, ignore_errors=True)
        self._writer: Any = SummaryWriter(str(self._folder))
        rows = "".join(f"|{key}|{value}|\n" for key, value in tracked.flat().items())
        self._writer.add_text("settings", f"|setting|value|\n|---|---|\n{rows}")

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write numbers, so that they can be seen at once."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def attach(self, page: Path) -> None:
        """Copy the page beside the event file, and write its path: TensorBoard shows no pages."""
        copy = shutil.copyfile(page, self._folder / page.name)
        self._writer.add_text("page", str(copy))

    def close(self, *, failed: bool) -> None:  # noqa: ARG002  event files have no such state
        """Close the file."""
        self._writer.close()


build = EventFiles
