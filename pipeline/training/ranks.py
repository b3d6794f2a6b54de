"""The processes that train one model together: several GPUs, or several hosts.

They are started by a launcher (`accelerate launch`, torchrun, mpirun), run the same program and
differ by their number. Each computes a share of the rows of every batch. What a batch gives is the
sum over the shares, so that the steps of the optimiser, and the loss curve, are those of one
process up to the order of additions and the draws of dropout. The first process alone shows,
writes and removes anything.

Gradients are added up once a step, behind all of its batches, and not while a backward pass is
under way as torch's DistributedDataParallel does: shares may be uneven, batches are cut where they
do not fit, and a layer may be left out, each in one process alone.

The launcher's network is trusted: small facts go between processes as pickled objects.
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

Value = TypeVar("Value")
BUCKET = 2**24  # numbers that are sent at once: 64 MiB of float32
PARTING = timedelta(seconds=10)  # for the first process to say why it ends


class PartedError(HeronryError):
    """Another process has ended, for a reason of its own."""


@dataclass(frozen=True)
class Ranks:
    """All of them, as one of them sees them; without arguments it is alone, and nothing is sent.

    Attributes:
        count: How many there are.
        number: Of this one, from 0.
        device: Where this one computes; empty: as it is told.
        small: Group for what is small and lies in the computer's own memory.
    """

    count: int = 1
    number: int = 0
    device: str = ""
    small: Any = None

    @property
    def is_first(self) -> bool:
        """Whether this is the one that shows and writes."""
        return self.number == 0

    def share(self, rows: Sequence[Value]) -> Sequence[Value]:
        """This process's part: every `count`-th, so that shares of rows by length are alike."""
        return rows if self.count == 1 else rows[self.number :: self.count]

    def gather(self, value: Value) -> list[Value]:
        """That of every process, in order of their numbers."""
        if self.count == 1:
            return [value]
        found: list[Any] = [None] * self.count
        with self._meeting():
            dist.all_gather_object(found, value, group=self.small)
        return found

    def together(
        self, work: Callable[[], Value], faults: tuple[type[HeronryError], ...]
    ) -> list[Value]:
        """What `work` gives in every process; a fault in one is raised in all."""
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
        """Raise the first fault of a list that holds one, or None, for each process."""
        for number, fault in enumerate(faults):
            if fault is not None:
                fault.args = (f"{fault} (process {number} of {self.count})",)
                raise fault

    def from_first(self, value: Value) -> Value:
        """What the first process has."""
        if self.count == 1:
            return value
        box: list[Any] = [value if self.is_first else None]
        with self._meeting():
            dist.broadcast_object_list(box, src=0, group=self.small)
        return box[0]  # type: ignore[no-any-return]

    def tensors_from_first(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The first process's tensors by name, which lie in its own memory."""
        if self.count == 1:
            return dict(tensors)
        like = self.from_first({name: (t.shape, t.dtype) for name, t in tensors.items()})
        found = {}
        with self._meeting():
            for name, (shape, dtype) in like.items():
                own = tensors[name].contiguous() if self.is_first else torch.empty(shape).to(dtype)
                dist.broadcast(own, src=0, group=self.small)
                found[name] = own
        return found

    @torch.no_grad()
    def level(self, model: nn.Module) -> None:
        """Give a model the first process's weights, whatever it was made with elsewhere.

        Raises:
            ParamsError: If shares of a batch cannot give what the batch gives.
        """
        if self.count > 1:
            _refuse_batch_norm(model, self.count)
            with self._meeting():
                for value in model.state_dict().values():
                    own = value.contiguous()
                    dist.broadcast(own, src=0)
                    value.copy_(own)

    @torch.no_grad()
    def add_up(self, parameters: Iterable[nn.Parameter]) -> None:
        """Replace each gradient by the sum over all processes.

        A parameter that no process has used has none, as in one process.
        """
        if self.count == 1:
            return
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        used = torch.tensor([parameter.grad is not None for parameter in trained]).int()
        with self._meeting():
            dist.all_reduce(used, dist.ReduceOp.MAX, group=self.small)
            gradients = [_gradient(p) for p, has in zip(trained, used.tolist(), strict=True) if has]
            for bucket in _buckets(gradients):
                flat = torch.cat([gradient.flatten() for gradient in bucket])
                dist.all_reduce(flat)
                parts = torch.split(flat, [gradient.numel() for gradient in bucket])
                for gradient, part in zip(bucket, parts, strict=True):
                    gradient.copy_(part.view_as(gradient))

    def draw_apart(self, *origin: object) -> None:
        """Let torch draw numbers of its own in each process but the first, from some origin."""
        if not self.is_first:
            digest = hashlib.sha256(repr((origin, self.number)).encode()).digest()
            torch.manual_seed(int.from_bytes(digest[:7]))

    def wait(self) -> None:
        """For all others to come here."""
        self.gather(None)

    def first_has_ended(self) -> bool:
        """Whether the first process ends within a few seconds, which then has told its reason."""
        try:
            dist.irecv(torch.empty(1), src=0, group=self.small).wait(PARTING)  # type: ignore[union-attr]
        except RuntimeError as error:
            return "imed out" not in str(error)
        return False

    @contextlib.contextmanager
    def _meeting(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise PartedError(
                f"process {self.number} of {self.count} waited for the others, and one of them has "
                "ended or cannot be reached; expected all of them to come as far: its own message "
                "says why, and the same command goes on from the last checkpoint"
            ) from error


ALONE = Ranks()


def ranks_of(examples: object) -> Ranks:
    """Those that share the rows of some examples; features from caches are never shared out."""
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


def _gradient(parameter: nn.Parameter) -> Tensor:
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
