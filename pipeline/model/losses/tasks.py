"""Loss of several tasks on one output: a weighted sum of the mean loss of each.

Each mean is over the rows that have the task's target. A batch may be cut in parts, or shared out
over processes: losses that are means of terms by row are then summed with the divisor of the whole
batch (`Targets.whole`), so that parts add up to the whole whatever targets their rows lack. A loss
that is no mean of such terms, as 1 - CCC, cannot be cut (`Criterion.cuts`); processes compute it on
the outputs of all of them.

Weighting by uncertainty (Kendall et al. 2018, arXiv 1705.07115): sum over tasks of
exp(-s) L + s / 2 with a trained s for each. 1 - CCC is no log-likelihood, which that paper assumes.

Shapes: R rows, K classes, A attributes, G genders, O outputs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from features.errors import ParamsError
from pipeline.model.batch import UNSCORED, Targets
from pipeline.model.losses.classes import Criterion
from pipeline.model.losses.votes import smoothed
from pipeline.model.outputs import Outputs

Loss = Callable[[Tensor, Tensor], Tensor]
"""From outputs and truth of R rows to the mean of their losses, a scalar."""


class TaskValue(NamedTuple):
    """Mean loss of a task, and the number by which means of batches are weighted."""

    loss: float
    size: float


class TaskLoss(nn.Module):
    """Base of the losses of single tasks; rows that lack the target are left out by the caller.

    Args:
        outputs: Columns of the outputs.

    Attributes:
        name: Target that it is about.
        cuts: Whether the loss of a batch is a mean of that of its parts.
    """

    name = ""
    cuts = True

    def __init__(self, outputs: Outputs) -> None:
        super().__init__()
        self.outputs = outputs

    def known(self, targets: Targets) -> Tensor:
        """`[R]` bool: rows that have the target."""
        raise NotImplementedError

    def size(self, targets: Targets) -> float:
        """Divisor of the mean over rows that all have the target; 0: there is no loss."""
        return float(len(targets))

    def forward(self, outputs: Tensor, targets: Targets) -> Tensor:
        """The mean over rows that all have the target."""
        raise NotImplementedError


class ClassTask(TaskLoss):
    """Classes by one of `pipeline.model.losses.classes`."""

    name = "classes"

    def __init__(self, outputs: Outputs, criterion: Criterion) -> None:
        super().__init__(outputs)
        self.criterion = criterion

    def known(self, targets: Targets) -> Tensor:
        """Rows with a class, or with shares of classes."""
        labels = targets.labels
        return labels != UNSCORED if labels.ndim == 1 else ~labels.isnan().any(1)

    def size(self, targets: Targets) -> float:
        """The criterion's own divisor."""
        return self.criterion.size(targets.labels)

    def forward(self, outputs: Tensor, targets: Targets) -> Tensor:
        """The criterion's mean."""
        loss: Tensor = self.criterion(self.outputs.of_classes(outputs), targets.labels)
        return loss


class VoteTask(TaskLoss):
    """Shares of raters' votes by one of `pipeline.model.losses.votes`.

    Args:
        outputs: Columns of the outputs.
        loss: Loss of logits `[R, K]` and shares `[R, K]`.
        smoothing: Share of every row's votes that is spread evenly over the classes.
    """

    name = "votes"

    def __init__(self, outputs: Outputs, loss: Loss, smoothing: float = 0.0) -> None:
        super().__init__(outputs)
        self.loss, self.smoothing = loss, smoothing

    def known(self, targets: Targets) -> Tensor:
        """Rows with votes."""
        assert targets.shares is not None
        return ~targets.shares.isnan().any(1)

    def forward(self, outputs: Tensor, targets: Targets) -> Tensor:
        """The loss of the smoothed shares."""
        assert targets.shares is not None
        shares = smoothed(targets.shares, self.smoothing)
        return self.loss(self.outputs.of_classes(outputs).float(), shares)


class AttributeTask(TaskLoss):
    """Attributes by one of `pipeline.model.losses.attributes`, where [0, 1] is the scale.

    Args:
        outputs: Columns of the outputs.
        loss: Loss of predictions `[R, A]` and truth `[R, A]`, NaN where unknown.
        cuts: Whether it is a mean over known pairs of row and attribute.
    """

    name = "attributes"

    def __init__(self, outputs: Outputs, loss: Loss, *, cuts: bool) -> None:
        super().__init__(outputs)
        self.loss, self.cuts = loss, cuts

    def known(self, targets: Targets) -> Tensor:
        """Rows with any attribute."""
        assert targets.values is not None
        return ~targets.values.isnan().all(1)

    def size(self, targets: Targets) -> float:
        """Known pairs; of a loss that is no mean, rows, if any attribute is known of two."""
        assert targets.values is not None
        known = ~targets.values.isnan()
        if self.cuts:
            return float(known.sum())
        return float(len(targets)) if bool((known.sum(0) > 1).any()) else 0.0

    def forward(self, outputs: Tensor, targets: Targets) -> Tensor:
        """The loss of linked outputs, in float32."""
        assert targets.values is not None
        return self.loss(self.outputs.of_attributes(outputs.float()), targets.values)


class GenderTask(TaskLoss):
    """Gender of the speaker by cross-entropy, as an auxiliary task."""

    name = "gender"

    def known(self, targets: Targets) -> Tensor:
        """Rows with a known gender."""
        assert targets.genders is not None
        return ~targets.genders.isnan().any(1)

    def forward(self, outputs: Tensor, targets: Targets) -> Tensor:
        """Cross-entropy in nats."""
        assert targets.genders is not None
        return F.cross_entropy(self.outputs.of_genders(outputs).float(), targets.genders)


class TaskLosses(Criterion):
    """Weighted sum of the losses of some tasks: `criterion(outputs [R, O], targets)`.

    A task without a target in the batch leaves the sum.

    Args:
        tasks: Loss of each task.
        weights: Factor by task.
        gather: From a value of this process to those of all, in the order of the processes.

    Attributes:
        log_variances: `[tasks]`, the trained s of weighting by uncertainty; None: `weights` are
            used. It is neither a parameter nor saved with the model, which does not need it.
        calls: For each call since it was last cleared: loss by task. Of the calls that a model's
            loss makes, the first one is about its prediction.
    """

    def __init__(
        self,
        tasks: Sequence[TaskLoss],
        weights: Mapping[str, float],
        gather: Callable[[Any], list[Any]] | None = None,
    ) -> None:
        super().__init__()
        self.tasks = nn.ModuleList(tasks)
        self.task_weights, self.gather = dict(weights), gather
        self.outputs = tasks[0].outputs
        self.cuts = all(task.cuts for task in tasks)
        self.log_variances: Tensor | None = None
        self.calls: list[dict[str, TaskValue]] = []

    def trained(self) -> list[Tensor]:
        """What of this loss is trained."""
        return [] if self.log_variances is None else [self.log_variances]

    def size(self, truth: Tensor | Targets) -> float:
        """Rows; 0 if the batch has no target of any task, or too few for the losses."""
        targets = _checked(truth)
        known = any(self._size(task, targets.whole or targets) for task in self._tasks())
        return float(len(targets)) if known else 0.0

    def forward(self, outputs: Tensor, truth: Tensor | Targets) -> Tensor:
        """A scalar; of a part, so that sums weighted by `size` over the parts are the whole's."""
        targets = _checked(truth)
        total, values = outputs.sum() * 0.0, {}
        for number, task in enumerate(self._tasks()):
            size = self._size(task, targets.whole or targets)
            if not size:
                continue
            of_task = self._cut if task.cuts else self._together
            loss = of_task(task, outputs, targets)
            values[task.name] = TaskValue(float(loss.detach()), float(len(targets)))
            if self.log_variances is None:
                total = total + self.task_weights[task.name] * loss
            else:
                s = self.log_variances[number]
                total = total + (-s).exp() * loss + s / 2
        self.calls.append(values)
        return total

    def _tasks(self) -> list[TaskLoss]:
        return list(self.tasks)  # type: ignore[arg-type]

    @staticmethod
    def _size(task: TaskLoss, targets: Targets) -> float:
        known = targets[task.known(targets)]
        return task.size(known) if len(known) else 0.0

    def _cut(self, task: TaskLoss, outputs: Tensor, targets: Targets) -> Tensor:
        """Mean over the rows of a part, with the divisor of the whole batch."""
        known = task.known(targets).nonzero(as_tuple=True)  # once, as a device is waited for
        own = targets[known]
        if not len(own):
            return outputs.sum() * 0.0
        loss: Tensor = task(outputs[known], own)
        whole = targets.whole
        if whole is None or len(whole) == len(targets):
            return loss
        return loss * (task.size(own) / self._size(task, whole) * len(whole) / len(targets))

    def _together(self, task: TaskLoss, outputs: Tensor, targets: Targets) -> Tensor:
        """Loss of the whole batch, of which other processes have some of the rows.

        Its gradient in the own rows is scaled as if it were theirs alone: each process reports its
        own rows as size, and the step divides the sum of gradients by the sum of sizes.
        """
        whole, places = targets.whole, targets.places
        if whole is None or places is None or len(whole) == int((places != UNSCORED).sum()):
            known = task.known(targets).nonzero(as_tuple=True)
            loss: Tensor = task(outputs[known], targets[known])
            return loss
        assert self.gather is not None, f"a batch of the loss of {task.name} was cut"
        mine = places != UNSCORED
        own = outputs[mine].float()
        together = own.new_zeros(len(whole), outputs.shape[1])
        for there, found in self.gather((places[mine].cpu(), own.detach().cpu())):
            together[there.to(own.device)] = found.to(own.device)
        together[places[mine]] = own
        known = task.known(whole).nonzero(as_tuple=True)
        loss = task(together[known], whole[known])
        if not len(own):  # another process has the row that this one computes
            return loss.detach() + outputs.sum() * 0.0
        return loss.detach() + (loss - loss.detach()) * (len(whole) / len(own))


def _checked(truth: Tensor | Targets) -> Targets:
    if isinstance(truth, Targets):
        return truth
    raise ParamsError(
        "train.targets: the loss of this model passes classes alone to its criterion; expected "
        "`outputs, truth = batch.scored(prediction.logits)` (docs/adding.md): correct its `loss`, "
        "or set `targets: [classes]`"
    )


def zeros_of(criterion: TaskLosses, device: torch.device) -> Tensor:
    """Trained weights before the first step: s = 0, a factor of 1, for each task."""
    return torch.zeros(len(criterion.tasks), device=device, requires_grad=True)
