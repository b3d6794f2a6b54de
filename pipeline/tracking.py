"""Shows trainings and reports in experiment trackers: the setting `trackers` of params.yaml.

A tracker is the module of its name in `pipeline/trackers`. It gets the settings, the scores of each
epoch, and the page of the report. Nothing is read back from it and no output of a stage holds
anything of it, so that stages of DVC depend neither on the setting nor on these sources.

What trackers write on this machine lies below `tracking/` in the project, which Git ignores.
Servers and keys are theirs to know: MLFLOW_TRACKING_URI, WANDB_API_KEY and so on.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from features.arguments import one_of, quoted
from features.process import interrupts
from features.settings.locations import project_root
from features.settings.plugins import kinds, load

PACKAGE = "pipeline.trackers"
FOLDER = "tracking"
REPORT = "report"  # name of what is tracked of an evaluation; of a training it is seed_0/fold_0
# Keys of run.json that are settings; those that say nothing are absent.
_SETTINGS = ("regime", "corpus", "fusion", "kind", "args", "inputs", "train", "e2e")


@dataclass(frozen=True)
class Tracked:
    """One training or report, as trackers show it.

    Attributes:
        trackers: Names of trackers.
        settings: Settings of the run, nested; values are those of JSON.
        name: `seed_0/fold_0`, or `REPORT`.
        folder: Folder for what trackers write on this machine.
    """

    trackers: tuple[str, ...]
    settings: Mapping[str, Any]
    name: str
    folder: Path

    @classmethod
    def of(cls, trackers: list[str], record: Mapping[str, Any], name: str) -> Self:
        """What is tracked of a run.

        Args:
            trackers: The setting `trackers`.
            record: run.json, or its fields `_SETTINGS` and `slots` before it is written.
            name: `seed_0/fold_0`, or `REPORT`.
        """
        chosen = {key: record[key] for key in _SETTINGS if record.get(key)}
        slots = {slot: filled and filled["backbone"] for slot, filled in record["slots"].items()}
        settings = json.loads(json.dumps({**chosen, "slots": slots}))
        return cls(tuple(dict.fromkeys(trackers)), settings, name, project_root() / FOLDER)

    @property
    def title(self) -> str:
        """Name for people, such as `concat on demo, seed_0/fold_0`."""
        return f"{self.settings['fusion']} on {self.settings['corpus']}, {self.name}"

    @property
    def group(self) -> str:
        """Name that trainings and report of the same settings share: `cached/demo/concat/4c1f09aa`.

        Made of the settings, since a report may be written long after the trainings, elsewhere.
        """
        text = json.dumps(self.settings, sort_keys=True)
        run = (self.settings[key] for key in ("regime", "corpus", "fusion"))
        return "/".join((*run, hashlib.sha256(text.encode()).hexdigest()[:8]))

    @property
    def experiment(self) -> str | None:
        """Name of the experiment, where `dvc exp run` started this process."""
        return os.environ.get("DVC_EXP_NAME")

    def flat(self) -> dict[str, str]:
        """The settings as text by dotted key, such as `train.lr`."""
        return dict(_flat("", self.settings))


class Tracker(Protocol):
    """A plug-in of `pipeline/trackers`, built from the `Tracked` that it shows.

    Its module imports its package when it is built; `package` is the name that is imported.
    """

    package: str

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Show numbers of an epoch (from 1), or of a report (0)."""

    def attach(self, page: Path) -> None:
        """Keep a copy of the report's page."""

    def close(self, *, failed: bool) -> None:
        """Finish; `failed`: the training ended by an error or a signal."""


class Trackers:
    """The trackers of one training or report, open within a `with` block.

    A tracker that fails is left out from then on, with a line: a server that does not answer must
    not end hours of training.

    Args:
        tracked: What they show; None: nothing.
        say: Called with a line about a tracker that failed.
    """

    def __init__(self, tracked: Tracked | None, say: Callable[[str], object]) -> None:
        self._tracked, self._say = tracked, say
        self._open: dict[str, Tracker] = {}

    def __enter__(self) -> Self:
        for name in self._tracked.trackers if self._tracked else ():
            with self._left_out_if_it_fails(name):
                self._open[name] = load(PACKAGE, name)(self._tracked)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: object, __: TracebackType | None
    ) -> None:
        self._each(lambda tracker: tracker.close(failed=kind is not None))

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Show numbers of an epoch (from 1), or of a report (0)."""
        self._each(lambda tracker: tracker.log(step, values))

    def attach(self, page: Path) -> None:
        """Keep the page of the report."""
        self._each(lambda tracker: tracker.attach(page))

    def _each(self, call: Callable[[Tracker], None]) -> None:
        for name, tracker in list(self._open.items()):
            with self._left_out_if_it_fails(name):
                call(tracker)

    @contextmanager
    def _left_out_if_it_fails(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # of a foreign package, which may raise anything
            if interrupts.asked():
                raise  # packages may turn Ctrl-C into an error of their own
            self._open.pop(name, None)
            reason = " ".join(str(error).split()) or type(error).__name__
            self._say(f"warning: tracker {name}: {reason[:300]}; it is left out from here on")


def tracker_problems(given: object) -> list[str]:
    """Problems with the setting `trackers`, and packages that it needs, one line each."""
    if not (isinstance(given, list) and all(isinstance(name, str) for name in given)):
        known = list(kinds(PACKAGE))
        return [f"trackers: given {quoted(given)}; expected a list of some of {known}, or []"]
    found = []
    for name in dict.fromkeys(given):
        if name not in kinds(PACKAGE):
            expected = one_of(name, kinds(PACKAGE))
            found.append(f"trackers: given {quoted(name)}; expected {expected}")
        elif not _installed(load(PACKAGE, name).package):
            found.append(
                f"trackers: given {name!r}, whose package is not installed; expected it: "
                f"`pip install --editable '.[{name}]'`, or take {name} out of the list"
            )
    return found


def _installed(package: str) -> bool:
    spec = find_spec(package)
    # A folder of that name, such as the one in which W&B keeps its files, is no package.
    return spec is not None and spec.origin is not None


def _flat(key: str, value: object) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _flat(f"{key}.{name}" if key else name, inner)
    else:
        yield key, value if isinstance(value, str) else json.dumps(value)
