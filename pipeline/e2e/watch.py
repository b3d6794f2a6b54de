"""Shows each step of an end-to-end training, saves it within epochs, and stops it on SIGTERM."""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Mapping

import torch

from features.corpus.utterance import Utterance
from pipeline.e2e.source import LiveExamples
from pipeline.params.tuning import TuneParams
from pipeline.runs.job import Job, JobProgress, ShowLine
from pipeline.runtime.stopping import StoppedError, StopRequest
from pipeline.training.fitting import to_stderr
from pipeline.training.state import Training

RSS_BYTES = 1 if sys.platform == "darwin" else 1024  # unit of the largest resident set


class Speed:
    """Utterances, and seconds of audio, per second since the last line.

    Args:
        utterances: Utterances by id.
    """

    def __init__(self, utterances: Mapping[str, Utterance]) -> None:
        self._utterances = utterances
        self.restart()

    def restart(self) -> None:
        """Count from here on."""
        self.since, self._count, self._audio = time.monotonic(), 0, 0.0

    def add(self, ids: tuple[str, ...]) -> None:
        """Count processed utterances."""
        self._count += len(ids)
        self._audio += sum(self._utterances[id].seconds or 0.0 for id in ids)

    @property
    def passed(self) -> float:
        """Seconds since the last line."""
        return time.monotonic() - self.since

    def text(self) -> str:
        """The speed, for a line."""
        passed = max(self.passed, 1e-9)
        audio = f", {self._audio / passed:.1f} s of audio/s" if self._audio else ""
        return f"{self._count / passed:.1f} utterances/s{audio}"


class TuneProgress(JobProgress):
    """Shows an end-to-end training, keeps its checkpoints, and stops it when asked to.

    Args:
        job: The training.
        examples: Its utterances, and the processes that train it together.
        params: Section `e2e` of params.yaml.
        request: Whether the training is to stop.
        show: Shows its lines; None: nothing is shown.
        every: Seconds between two lines within an epoch.
    """

    lasting = True

    def __init__(
        self,
        job: Job,
        examples: LiveExamples,
        params: TuneParams,
        request: StopRequest,
        show: ShowLine | None,
        *,
        every: float,
    ) -> None:
        super().__init__(job, show, seconds=params.save_seconds, keep=params.keep)
        self.ranks, self.request, self.every = examples.ranks, request, every
        self._speed, self._checked = Speed(examples.utterances), 0
        self._training: Training | None = None

    def begin(self, training: Training) -> None:
        """Resume the training from its last checkpoint, and start the clock."""
        self._training = training
        super().begin(training)
        self._speed.restart()

    def advance(self, ids: tuple[str, ...], loss: float | None) -> None:
        """Show a step or validation batch, save a checkpoint if due, and stop if asked to.

        Raises:
            StoppedError: If a process was asked to stop; the training is saved.
        """
        training = self._training
        assert training is not None
        self._speed.add(ids)
        self._checked = 0 if loss is not None else self._checked + len(ids)
        if self._speed.passed >= self.every:
            self.line(self._text(training, loss))
            self._speed.restart()
        # All processes must save and stop at the same step: any of them may have had the signal,
        # and the first one's clock decides.
        due = self.ranks.is_first and self.checkpoints.due()
        asked, dues = zip(*self.ranks.gather((self.request.asked, due)), strict=True)
        if any(asked):
            self._stop(training)
        elif any(dues):
            self.checkpoints.save(training)

    def message(self, text: str) -> None:
        """Show a line that stays; processes that show nothing else print it with their number."""
        if self.ranks.is_first:
            super().message(text)
        else:  # it is about the memory of this process
            to_stderr(f"process {self.ranks.number}: {text}")

    def _text(self, training: Training, loss: float | None) -> str:
        params, current = self.job.params, training.current
        steps = training.schedule.steps // params.epochs
        where = f"epoch {len(training.history) + 1}/{params.epochs}"
        if loss is None:
            done = f"validation, {self._checked} utterances"
        else:
            step = 0 if current is None else -(-current.batches // params.accumulate)
            done = f"step {step}/{steps}, loss {loss:.3f}"
        memory = f"{peak_bytes(self.job.device) / 2**30:.1f} GiB at most"
        return f"{where} {done}, {self._speed.text()}, {memory}"

    def _stop(self, training: Training) -> None:
        saved, last = self.checkpoints.save(training), self.checkpoints.last
        where = f"after step {training.schedule.step} of seed {self.job.seed} fold {self.job.fold}"
        then = "starts it again" if last is None else f"resumes from {last}"
        raise StoppedError(
            f"stopped by SIGTERM {where}{'' if saved else ', which could not be saved'}: "
            f"the same command {then}"
        )


def peak_bytes(device: str) -> int:
    """Largest amount of memory used so far: of the device, or of this process on a CPU."""
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * RSS_BYTES
