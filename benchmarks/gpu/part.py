"""What a part of the run is given (a device, folders, time), and what it reports."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from benchmarks.shared.networks import NETWORKS, SMALL_SPEECH, Network, small, write_speech
from benchmarks.shared.our_tuning import settings
from benchmarks.shared.rounds import interleave
from features.backbone.entry import BackboneEntry


class SkippedError(Exception):
    """The part does not apply to this machine; the message says why."""


@dataclass(frozen=True)
class Bench:
    """The machine, as one part of the run sees it.

    Attributes:
        device: `cuda`, or `cpu` to try the program out.
        quick: Whether networks and corpora are tiny.
        folder: Empty folder of this part.
        shared: Folder of checkpoints and caches that several parts use.
        seconds: Time budget of this part.
    """

    device: str
    quick: bool
    folder: Path
    shared: Path
    seconds: float
    begun: float = field(default_factory=time.monotonic)

    @cached_property
    def devices(self) -> tuple[str, ...]:
        """All devices of the kind."""
        if self.device == "cpu":
            return ("cpu",)
        return tuple(f"cuda:{number}" for number in range(torch.cuda.device_count()))

    @property
    def left(self) -> float:
        """Seconds left of the budget."""
        return self.begun + self.seconds - time.monotonic()

    def entry(self, name: str, **common: Any) -> BackboneEntry:
        """Entry of a network with random weights, which are written by the first part that asks.

        Args:
            name: One of benchmarks/shared/networks.py, or `hubert-still`: HuBERT-base (in a quick
                run a small one) without dropout, to train.
            common: Settings of the entry, such as `compute_dtype`.
        """
        network = _still(quick=self.quick) if name == "hubert-still" else _network(self.quick, name)
        folder = self.shared / "checkpoints" / name
        written = folder.with_suffix(".json")  # only there once all is written
        if not written.exists():
            shutil.rmtree(folder, ignore_errors=True)
            options = network.write(folder)
            written.write_text(json.dumps(options), encoding="utf-8")
        options = json.loads(written.read_text(encoding="utf-8"))
        return BackboneEntry(name, network.kind, options=options, **common)

    def rounds(
        self, contenders: Mapping[str, Callable[[], float]], most: int = 3
    ) -> dict[str, list[float]]:
        """Interleaved rounds, as many as the budget allows: at least one, at most `most`."""
        found: dict[str, list[float]] = {name: [] for name in contenders}
        for _ in range(most):
            begun = time.monotonic()
            for name, seconds in interleave(contenders, 1, quiet=math.inf).items():
                found[name] += seconds
            if self.quick or self.left < 1.2 * (time.monotonic() - begun):
                break
        return found


def _network(quick: bool, name: str) -> Network:  # noqa: FBT001  beside a name that says it
    return small(name) if quick else NETWORKS[name]


def _still(*, quick: bool) -> Network:
    sizes = settings("small") | SMALL_SPEECH if quick else settings("base")

    def write(folder: Path) -> dict[str, Any]:
        return write_speech(folder, "Hubert", normalize=True, **sizes)

    return Network("speech_encoder", write)


@dataclass(frozen=True)
class Bound:
    """A number that has been found, and the bound that it is held against.

    Attributes:
        what: Description.
        found: The number.
        sense: `<=` or `>=`.
        limit: The bound.
        holds: Whether the number keeps to it; NaN never does.
    """

    what: str
    found: float
    sense: str
    limit: float
    holds: bool

    @classmethod
    def of(
        cls, what: str, found: float, at_most: float | None = None, at_least: float | None = None
    ) -> Bound:
        """Hold a number against one of the two bounds."""
        if at_most is not None:
            return cls(what, short(found), "<=", at_most, found <= at_most)
        assert at_least is not None
        return cls(what, short(found), ">=", at_least, found >= at_least)


@dataclass
class Report:
    """What a part has found so far; each addition is sent on at once, in case it is the last.

    Attributes:
        send: Called with the whole content.
        checks: Tolerances that must hold.
        goals: Speeds that were promised; missing one is a finding, not a fault.
        figures: Other numbers by name.
    """

    send: Callable[[dict[str, Any]], None]
    checks: list[Bound] = field(default_factory=list)
    goals: list[Bound] = field(default_factory=list)
    figures: dict[str, Any] = field(default_factory=dict)

    def check(self, what: str, found: float, **bound: float) -> None:
        """Add a tolerance: `at_most` or `at_least`."""
        self.checks.append(Bound.of(what, found, **bound))
        self.send(self.content())

    def goal(self, what: str, found: float, **bound: float) -> None:
        """Add a goal: `at_most` or `at_least`."""
        self.goals.append(Bound.of(what, found, **bound))
        self.send(self.content())

    def add(self, **figures: Any) -> None:
        """Add figures; numbers are rounded to three digits."""
        self.figures |= {name: _shortened(value) for name, value in figures.items()}
        self.send(self.content())

    def content(self) -> dict[str, Any]:
        """As it stands in the file of results."""
        return {
            "checks": [dataclasses.asdict(each) for each in self.checks],
            "goals": [dataclasses.asdict(each) for each in self.goals],
            "figures": dict(self.figures),
        }


def short(value: float) -> float:
    """Rounded to three digits."""
    return float(f"{value:.3g}")


def _shortened(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {name: _shortened(each) for name, each in value.items()}
    if isinstance(value, list | tuple):
        return [_shortened(each) for each in value]
    return short(value) if isinstance(value, float) else value
