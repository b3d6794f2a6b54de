"""Learning rates by optimiser step: linear warm-up, then constant, by plateau, or a cosine."""

from __future__ import annotations

import math
from typing import Any, Literal

Kind = Literal["plateau", "constant", "cosine"]
PLATEAU_THRESHOLD = 1e-4  # relative: a loss counts as lower if it is this much below the best
PLATEAU_EPS = 1e-8  # the rate is not changed by less


class Schedule:
    """Learning rate of each optimiser step.

    Step s (from 0) of `warmup` steps has start + (peak - start) s / warmup. Afterwards `constant`
    stays at the peak; `cosine` has end + (peak - end) (1 + cos(pi u)) / 2, where u rises from 0 at
    the end of the warm-up to 1 at the last step (arXiv 2506.02088: 500 steps from 1e-5 to 5e-5,
    and back to 1e-5); `plateau` multiplies the rate by a factor after more than `patience` epochs
    without a lower validation loss, by the rules of torch's ReduceLROnPlateau.

    Args:
        kind: Schedule after the warm-up.
        peak: Rate at the end of the warm-up.
        steps: Optimiser steps of all epochs.
        warmup: Optimiser steps of the warm-up.
        ends: Rates at the first step of the warm-up and at the last step of a cosine.
        plateau: Factor and patience of a plateau.
    """

    def __init__(
        self,
        kind: Kind,
        peak: float,
        *,
        steps: int,
        warmup: int = 0,
        ends: tuple[float, float] = (0.0, 0.0),
        plateau: tuple[float, int] = (0.5, 2),
    ) -> None:
        self.kind, self.peak, self.steps, self.warmup, self.ends = kind, peak, steps, warmup, ends
        self.factor, self.patience = plateau
        self.step = 0  # number of the next optimiser step
        self._best, self._waited = math.inf, 0

    @property
    def rate(self) -> float:
        """Rate of the next step."""
        start, end = self.ends
        if self.step < self.warmup:
            return start + (self.peak - start) * self.step / self.warmup
        if self.kind != "cosine":
            return self.peak
        # Steps count from 0, so that the last one, steps - 1, is at u = 1.
        length = max(self.steps - 1 - self.warmup, 1)
        share = min((self.step - self.warmup) / length, 1.0)
        return end + (self.peak - end) * (1 + math.cos(math.pi * share)) / 2

    def epoch_ended(self, valid_loss: float) -> None:
        """Lower the rate of a plateau schedule if the validation loss has not fallen for long."""
        if self.kind != "plateau":
            return
        if valid_loss < self._best * (1 - PLATEAU_THRESHOLD):
            self._best, self._waited = valid_loss, 0
        else:
            self._waited += 1
        if self._waited > self.patience:
            self._waited = 0
            lower = self.peak * self.factor
            if self.peak - lower > PLATEAU_EPS:
                self.peak = lower

    def state(self) -> dict[str, Any]:
        """State of the schedule, for JSON."""
        return {
            "step": self.step,
            "peak": self.peak,
            "best": None if math.isinf(self._best) else self._best,  # JSON has no infinity
            "waited": self._waited,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Restore what `state` returned."""
        self.step, self.peak, self._waited = state["step"], state["peak"], state["waited"]
        self._best = math.inf if state["best"] is None else state["best"]
