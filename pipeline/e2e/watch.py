"""Who watches an end-to-end training: shows each step, saves now and then, stops when asked to."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from features.corpus.utterance import Utterance
from features.errors import ParamsError
from pipeline.e2e.resume import Checkpoints
from pipeline.params.tuning import TuneParams
from pipeline.runs.job import Job, Tell, Watch
from pipeline.runtime.stopping import StoppedError, Wish
from pipeline.training.fitting import to_stderr
from pipeline.training.state import Tick, Training, Watcher

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


# The unit of what the system calls the largest resident set.
RSS_BYTES = 1 if sys.platform == "darwin" else 1024


class Speed:
    """Utterances and seconds of audio in a second, since the last line was shown.

    Args:
        utterances: By id.
    """

    def __init__(self, utterances: Mapping[str, Utterance]) -> None:
        self._utterances = utterances
        self.begin()

    def begin(self) -> None:
        """Count anew."""
        self.since, self._count, self._audio = time.monotonic(), 0, 0.0

    def add(self, ids: tuple[str, ...]) -> None:
        """These are done."""
        self._count += len(ids)
        self._audio += sum(self._utterances[id].seconds or 0.0 for id in ids)

    @property
    def passed(self) -> float:
        """Seconds since the last line."""
        return time.monotonic() - self.since

    def text(self) -> str:
        """For a line."""
        passed = max(self.passed, 1e-9)
        heard = f", {self._audio / passed:.1f} s of audio/s" if self._audio else ""
        return f"{self._count / passed:.1f} utterances/s{heard}"


class TuneWatch:
    """Shows an end-to-end training, keeps it, and ends it when that is wished.

    Args:
        job: What is trained.
        folder: Where it is kept; None: nowhere.
        params: How often, and how many times.
        wish: Whether it is to stop.
        speed: Of its utterances.
        tell: Told how far it is; None: nobody.
        every: Seconds between two lines within an epoch.
    """

    def __init__(
        self,
        job: Job,
        folder: Path | None,
        params: TuneParams,
        *,
        wish: Wish,
        speed: Speed,
        tell: Tell | None = None,
        every: float = 30.0,
    ) -> None:
        self.job, self.wish, self.every = job, wish, every
        self.checkpoints = Checkpoints(
            folder, seconds=params.save_seconds, keep=params.keep, say=self.say
        )
        self._speed, self._checked = speed, 0
        self._line = Watch(job, tell)
        self._lasting = Watch(job, None if tell is None else _lasting(tell))
        self._training: Training | None = None

    def begin(self, training: Training) -> None:
        """Take the training up where it was kept, and watch it from there."""
        self._training = training
        if self.checkpoints.restore(training):
            done, within = len(training.history), training.within
            more = "" if within is None else f" and {within.batches} batches of the next"
            self.say(f"goes on after epoch {done}{more}")
        number = training.ranks.number
        # Others show nothing, but this is about the memory of each.
        training.fitting.say = partial(_say_as, number) if number else self.say
        training.ticked.append(self.tick)
        self._speed.begin()

    def tick(self, tick: Tick) -> None:
        """After a step, or a batch of the validation split; all processes stop if one is to.

        Raises:
            StoppedError: If that is wished; the training is saved.
        """
        training = self._training
        assert training is not None
        self._speed.add(tick.ids)
        self._checked = 0 if tick.loss is not None else self._checked + len(tick.ids)
        if self._speed.passed >= self.every:
            self._line.tell(self._text(training, tick))
            self._speed.begin()
        asked, due = zip(*training.ranks.gather((self.wish.asked, self._due())), strict=True)
        if any(asked):
            self._stop(training)
        elif any(due):
            self.checkpoints.save(training)

    def epoch_ended(self, training: Training, *, ended: bool) -> None:
        """Tell of an epoch, and keep the training if it is time, or if it has ended."""
        self._lasting.epoch_ended(training, ended=ended)
        if training.ranks.from_first(ended or self._due()):
            self.checkpoints.save(training, ended=ended)

    def say(self, text: str) -> None:
        """Show a line that stays."""
        self._lasting.tell(text)

    def _due(self) -> bool:
        """Whether it is time for a checkpoint, by the clock of the first process."""
        training = self._training
        return training is not None and training.ranks.is_first and self.checkpoints.due()

    def _text(self, training: Training, tick: Tick) -> str:
        params, within = self.job.params, training.within
        steps = training.schedule.steps // params.epochs
        where = f"epoch {len(training.history) + 1}/{params.epochs}"
        if tick.loss is None:
            done = f"validation, {self._checked} utterances"
        else:
            step = 0 if within is None else -(-within.batches // params.accumulate)
            done = f"step {step}/{steps}, loss {tick.loss:.3f}"
        memory = f"{peak_bytes(self.job.device) / 2**30:.1f} GiB at most"
        return f"{where} {done}, {self._speed.text()}, {memory}"

    def _stop(self, training: Training) -> None:
        saved, last = self.checkpoints.save(training), self.checkpoints.last
        where = f"after step {training.schedule.step} of seed {self.job.seed} fold {self.job.fold}"
        then = "begins anew" if last is None else f"goes on from {last}"
        raise StoppedError(
            f"stopped by SIGTERM {where}{'' if saved else ', which could not be saved'}: "
            f"the same command {then}"
        )


def peak_bytes(device: str) -> int:
    """Most memory so far: of the device, or of this process on a CPU."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_BYTES


def _say_as(number: int, text: str) -> None:
    to_stderr(f"process {number}: {text}")


def _lasting(tell: Tell) -> Tell:
    """Every line stays, also in a terminal."""

    def told(text: str, *, done: bool = True) -> None:  # noqa: ARG001  it is
        tell(text, done=True)

    return told
