"""Data-parallel training: the processes that train one model together, on several GPUs or hosts.

A launcher (`accelerate launch`, torchrun, mpirun) starts them; they run the same program and differ
by their number. Each computes a share of the rows of every batch, and gradients are summed over the
shares, so that the optimiser's steps, and the loss curve, are those of one process up to the order
of additions and the draws of dropout. Only the first process shows, writes and removes anything.

Gradients are summed once a step, after all of its batches, and not during the backward pass as in
torch's DistributedDataParallel: shares may be uneven, a batch may be cut where it does not fit, and
a layer may be left out, each in one process alone.

The launcher's network is trusted: small values are sent as pickled objects.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from features.errors import HeronryError, ParamsError
from features.process.memory import out_of_memory

Value = TypeVar("Value")
BUCKET = 2**24  # numbers that are sent at once: 64 MiB of float32
PARTING = timedelta(seconds=10)  # in which the first process may end with a message of its own


class LostProcessError(HeronryError):
    """Another process has ended or cannot be reached."""


@dataclass(frozen=True)
class Ranks:
    """The processes of a training, seen from one of them; by default there is one, alone.

    Attributes:
        count: Number of processes.
        number: Number of this process, from 0.
        device: Device of this process; empty: the one that the command was given.
        small: Process group for small values in the computer's own memory.
    """

    count: int = 1
    number: int = 0
    device: str = ""
    small: Any = None

    @property
    def is_first(self) -> bool:
        """Whether this is the process that shows and writes."""
        return self.number == 0

    def share(self, rows: Sequence[Value]) -> Sequence[Value]:
        """This process's rows: every `count`-th, so that shares of sorted rows are about equal."""
        return rows if self.count == 1 else rows[self.number :: self.count]

    def gather(self, value: Value) -> list[Value]:
        """The values of all processes, by number."""
        if self.count == 1:
            return [value]
        found: list[Any] = [None] * self.count
        with self._communication():
            dist.all_gather_object(found, value, group=self.small)
        return found

    def gather_from(
        self, work: Callable[[], Value], faults: tuple[type[HeronryError], ...]
    ) -> list[Value]:
        """Call `work` in every process and gather the results; a fault in one is raised in all."""
        if self.count == 1:
            return [work()]
        mine: tuple[Value | None, HeronryError | None]
        try:
            mine = work(), None
        except faults as error:
            mine = None, error
        found = self.gather(mine)
        self.check([fault for _, fault in found])
        return [value for value, _ in found]  # type: ignore[misc]

    def check(self, faults: Sequence[HeronryError | None]) -> None:
        """Raise the first error among those of all processes."""
        for number, fault in enumerate(faults):
            if fault is not None:
                # The exception of another process was pickled; every process raises its own copy.
                fault.args = (f"{fault} (process {number} of {self.count})",)
                raise fault

    def broadcast(self, value: Value) -> Value:
        """The first process's value."""
        if self.count == 1:
            return value
        box: list[Any] = [value if self.is_first else None]
        with self._communication():
            dist.broadcast_object_list(box, src=0, group=self.small)
        return box[0]  # type: ignore[no-any-return]

    def broadcast_tensors(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The first process's tensors by name, in the computer's own memory."""
        if self.count == 1:
            return dict(tensors)
        like = self.broadcast({name: (t.shape, t.dtype) for name, t in tensors.items()})
        found = {}
        with self._communication():
            for name, (shape, dtype) in like.items():
                own = tensors[name].contiguous() if self.is_first else torch.empty(shape).to(dtype)
                dist.broadcast(own, src=0, group=self.small)
                found[name] = own
        return found

    @torch.no_grad()
    def broadcast_weights(self, model: nn.Module) -> None:
        """Give a model the first process's weights.

        Raises:
            ParamsError: If the model has a batch norm, whose result depends on the whole batch.
        """
        if self.count > 1:
            _refuse_batch_norm(model, self.count)
            with self._communication():
                for value in model.state_dict().values():
                    own = value.contiguous()
                    dist.broadcast(own, src=0)
                    value.copy_(own)

    @torch.no_grad()
    def sum_gradients(self, parameters: Iterable[Tensor]) -> None:
        """Replace each gradient by its sum over all processes.

        A parameter that no process has used keeps no gradient, as in one process.
        """
        if self.count == 1:
            return
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        # All processes must send the same list of tensors, so they first agree on it.
        used = torch.tensor([parameter.grad is not None for parameter in trained]).int()
        with self._communication():
            dist.all_reduce(used, dist.ReduceOp.MAX, group=self.small)
            gradients = [_gradient(p) for p, has in zip(trained, used.tolist(), strict=True) if has]
            for bucket in _buckets(gradients):
                flat = torch.cat([gradient.flatten() for gradient in bucket])
                dist.all_reduce(flat)
                parts = torch.split(flat, [gradient.numel() for gradient in bucket])
                for gradient, part in zip(bucket, parts, strict=True):
                    gradient.copy_(part.view_as(gradient))

    def seed_others(self, *origin: object) -> None:
        """Seed torch's generator in each process but the first, from `origin` and its number."""
        if not self.is_first:
            digest = hashlib.sha256(repr((origin, self.number)).encode()).digest()
            torch.manual_seed(int.from_bytes(digest[:7]))

    def wait(self) -> None:
        """Wait until all processes have called this."""
        self.gather(None)

    def first_has_ended(self) -> bool:
        """Whether the first process, which prints the error of all, ends within a few seconds."""
        try:
            # Nothing is ever sent: the call fails at once when the other side is gone.
            dist.irecv(torch.empty(1), src=0, group=self.small).wait(PARTING)  # type: ignore[union-attr]
        except RuntimeError as error:
            return "imed out" not in str(error)
        return False

    @contextlib.contextmanager
    def _communication(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            if out_of_memory(error):  # of this process: no other one has ended
                raise
            raise LostProcessError(
                f"process {self.number} of {self.count} waited for the others, and one of them has "
                "ended or cannot be reached; expected all of them to run: its own message says "
                "why, and the same command resumes from the last checkpoint"
            ) from error


ALONE = Ranks()


def ranks_of(examples: object) -> Ranks:
    """Processes that share the rows of some examples; cached features are never shared out."""
    found = getattr(examples, "ranks", ALONE)
    assert isinstance(found, Ranks)
    return found


def _refuse_batch_norm(model: nn.Module, count: int) -> None:
    model.train()  # frozen networks stay in eval mode, where a batch norm has fixed statistics
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and module.training:
            raise ParamsError(
                f"{count} processes: the batch norm {name} of this model has the statistics "
                "of a batch, and each process has a share of it only; expected one process: leave "
                "out the launcher (HERONRY_E2E_LAUNCH), or take a model without batch norm"
            )


def _gradient(parameter: Tensor) -> Tensor:
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    bucket: list[Tensor] = []
    for tensor in tensors:
        if bucket and sum(t.numel() for t in bucket) + tensor.numel() > BUCKET:
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket
