"""One pass of a network over a batch, for all entries that take states of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import torch

from features.backbone.base import Inputs, Record
from features.backbone.siblings import deepest, layers_of
from features.extraction.batches import Prepared
from features.extraction.runner import Result, Runner, halver
from features.process.memory import DoesNotFitError, out_of_memory


class OnePass:
    """Computes batches of one shard for several entries of one network.

    What follows the network is computed for each entry as by itself, on the same shapes. So are
    whole batches that do not fit the device with the states of all, entry by entry: then each is
    cut as it would be alone.

    Args:
        runners: Runner of each entry; one of them alone adds nothing.
    """

    def __init__(self, runners: Sequence[Runner]) -> None:
        self.runners = runners
        backbones = [runner.backbone for runner in runners]
        self._layers = layers_of(backbones)
        first = deepest(backbones)
        # The deepest network computes all states, and the others take theirs.
        self._order = sorted(range(len(runners)), key=lambda index: index != first)
        self._halver = halver()

    @torch.inference_mode()
    def launch(self, item: Prepared) -> list[list[Result]]:
        """Start a batch on the device: the results of each entry."""
        found = self._together(item) if len(self.runners) > 1 and item.inputs is not None else None
        return [runner.launch(item) for runner in self.runners] if found is None else found

    @torch.inference_mode()
    def launch_beside(self, item: Prepared) -> list[list[Result]] | None:
        """As `launch`, while other threads compute; None if it does not fit beside them."""
        if item.inputs is None:
            return [[] for _ in self.runners]
        if len(self.runners) == 1:
            found = self.runners[0].launch_beside(item)
            return None if found is None else [found]
        try:
            return self._computed(item, item.inputs)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            return None

    def _together(self, item: Prepared) -> list[list[Result]] | None:
        """Results of a batch for each entry; None if it does not fit with the states of all."""
        assert item.inputs is not None
        if next(self._halver.parts(item.inputs)) is not item.inputs:
            return None  # a smaller one did not fit
        try:
            return self._halver.attempt_twice(
                item.inputs, lambda inputs: self._computed(item, inputs)
            )
        except DoesNotFitError:
            return None

    def _computed(self, item: Prepared, inputs: Inputs) -> list[list[Result]]:
        results: dict[int, list[Result]] = {}
        record = Record(self._layers)
        moved = inputs
        for index in self._order:
            runner = self.runners[index]
            record.rewind()
            with runner.entered():
                moved = moved.to(runner.device)  # once: then it is there
                stream = runner.run(dataclasses.replace(moved, record=record))
                results[index] = [runner.bring(item.utterances, stream)]
        return [results[index] for index in range(len(self.runners))]
