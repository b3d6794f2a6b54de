"""TensorBoard event files of a training, on request: `e2e.tensorboard`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from features.errors import ParamsError
from pipeline.training_state import Training, Watcher

EVENTS = "events"  # folder below that of a seed and fold


class EventFiles:
    """Writes what history.csv will hold, epoch by epoch.

    Args:
        folder: Of the event files.

    Raises:
        ParamsError: If TensorBoard, which is optional, is not installed.
    """

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise ParamsError(
                "e2e.tensorboard: given true, and the package tensorboard cannot be imported "
                f"({error}); expected it: `pip install tensorboard`, or set it to false"
            ) from error
        self._writer: Any = SummaryWriter(str(folder))

    def begin(self, training: Training) -> None:
        """Write the epochs that an earlier process has done."""
        for number in range(len(training.history)):
            self._write(training, number)

    def epoch_ended(self, training: Training, *, ended: bool) -> None:
        """Write an epoch, so that it can be seen at once."""
        self._write(training, len(training.history) - 1)
        self._writer.flush()
        if ended:
            self._writer.close()

    def _write(self, training: Training, number: int) -> None:
        epoch = training.history[number]
        values = {"lr": epoch.lr, "train/loss": epoch.train_loss, "valid/loss": epoch.valid_loss}
        values |= {f"valid/{name}": score for name, score in epoch.scores.items()}
        for name, value in values.items():
            self._writer.add_scalar(name, value, epoch.epoch)


class Watchers:
    """Several who want to know, told one after the other."""

    def __init__(self, watchers: Sequence[Watcher]) -> None:
        self._watchers = tuple(watchers)

    def begin(self, training: Training) -> None:
        """Tell all; the first may put the training where an earlier process left it."""
        for watcher in self._watchers:
            watcher.begin(training)

    def epoch_ended(self, training: Training, *, ended: bool) -> None:
        """Tell all."""
        for watcher in self._watchers:
            watcher.epoch_ended(training, ended=ended)
