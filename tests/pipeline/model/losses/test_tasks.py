"""A loss of several tasks: parts and processes give what the whole batch gives."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from features.errors import ParamsError
from pipeline.model.batch import UNSCORED, Targets
from pipeline.model.losses.attributes import CUTS, AttributeLoss, attribute_loss
from pipeline.model.losses.classes import CrossEntropy, class_weights
from pipeline.model.losses.tasks import (
    AttributeTask,
    ClassTask,
    GenderTask,
    TaskLoss,
    TaskLosses,
    VoteTask,
    zeros_of,
)
from pipeline.model.losses.votes import soft_ce
from pipeline.model.outputs import GENDERS, Outputs
from tests.support.models.golden import golden

K, A = 3, 2
OUTPUTS = Outputs(
    ("calm", "angry", "sad"),
    ("arousal", "valence"),
    GENDERS,
    {"arousal": (1.0, 7.0), "valence": (1.0, 7.0)},
)


def targets_of(rows: int, seed: int = 0) -> Targets:
    """Random targets, of which each row may lack any."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    labels = torch.randint(-1, K, (rows,), generator=generator)
    shares = drawn(rows, K).softmax(1)
    shares[drawn(rows) < 0.3] = torch.nan
    values = drawn(rows, A)
    values[drawn(rows, A) < 0.3] = torch.nan
    genders = torch.eye(2)[torch.randint(0, 2, (rows,), generator=generator)]
    genders[drawn(rows) < 0.2] = torch.nan
    present = torch.ones(rows, dtype=torch.bool)
    return Targets(present, labels, shares, values, genders).numbered()


def tasks_of(attribute: AttributeLoss = "mse") -> list[TaskLoss]:
    of_attributes = partial(attribute_loss, attribute)
    return [
        ClassTask(OUTPUTS, CrossEntropy(class_weights(torch.tensor([5, 2, 1])))),
        VoteTask(OUTPUTS, soft_ce, smoothing=0.1),
        AttributeTask(OUTPUTS, of_attributes, cuts=CUTS[attribute]),
        GenderTask(OUTPUTS),
    ]


WEIGHTS = {"classes": 1.0, "votes": 0.5, "attributes": 2.0, "gender": 0.1}


def outputs_of(rows: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, OUTPUTS.width, generator=generator).requires_grad_()


def summed(loss: TaskLosses, parts: list[tuple[Tensor, Targets]]) -> tuple[float, float]:
    """Mean loss by sums over the parts, whose gradients are summed too."""
    total = size = 0.0
    for outputs, targets in parts:
        value, count = loss(outputs, targets), loss.size(targets)
        (value * count).backward()
        total, size = total + float(value.detach()) * count, size + count
    return total / size, size


def gradient(outputs: Tensor, size: float) -> Tensor:
    assert outputs.grad is not None
    return outputs.grad / size


@settings(max_examples=40)
@given(
    rows=st.integers(1, 12),
    cuts=st.lists(st.integers(0, 12), max_size=3),
    seed=st.integers(0, 99),
    uncertain=st.booleans(),
)
def test_parts_add_up_to_the_whole(
    rows: int,
    cuts: list[int],
    seed: int,
    uncertain: bool,
) -> None:
    """Value and gradients, whatever targets the rows of a part lack."""
    loss = TaskLosses(tasks_of(), WEIGHTS)
    if uncertain:
        loss.log_variances = zeros_of(loss, torch.device("cpu"))
    targets = targets_of(rows, seed)
    if not loss.size(targets):
        return
    bounds = sorted({0, rows, *(min(cut, rows) for cut in cuts)})
    whole, cut = outputs_of(rows, seed), outputs_of(rows, seed)
    expected, size = summed(loss, [(whole, targets)])
    of_whole = [gradient(tensor, size) for tensor in (whole, *loss.trained())]
    for tensor in loss.trained():
        tensor.grad = None
    parts = [(cut[a:b], targets[a:b]) for a, b in itertools.pairwise(bounds)]
    found, size = summed(loss, parts)
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-6)
    for one, other in zip(of_whole, (cut, *loss.trained()), strict=True):
        assert torch.allclose(one, gradient(other, size), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("attribute", [name for name, cuts in CUTS.items() if not cuts])
@pytest.mark.parametrize("count", [2, 3, 9])
def test_processes_compute_an_uncut_loss_together(attribute: AttributeLoss, count: int) -> None:
    """Each on its share of the rows, and one without any row on a filler."""
    rows = 7
    targets, whole = targets_of(rows, 3), outputs_of(rows, 3)
    alone = TaskLosses(tasks_of(attribute), WEIGHTS)
    assert not alone.cuts
    expected, size = summed(alone, [(whole, targets)])
    shared = outputs_of(rows, 3)
    places = [torch.arange(rows)[number::count] for number in range(count)]
    sent = [(own, shared.detach()[own]) for own in places]
    together = TaskLosses(tasks_of(attribute), WEIGHTS, gather=lambda _: sent)
    total = counted = 0.0
    for own in places:
        if len(own):
            part = targets[own]
            value, n = together(shared[own], part), together.size(part)
        else:
            filler = targets[:1]
            assert filler.whole is not None
            filler = filler.part_of(filler.whole, torch.tensor([UNSCORED]))
            value, n = together(shared[:1], filler), 0.0
        (value * n).backward()
        total, counted = total + float(value.detach()) * n, counted + n
    assert counted == size
    assert total / size == pytest.approx(expected, rel=1e-5)
    assert torch.allclose(gradient(shared, size), gradient(whole, size), rtol=1e-4, atol=1e-6)


def test_total_is_the_weighted_sum_of_means_over_known_rows() -> None:
    targets, outputs = targets_of(9, 5), outputs_of(9, 5)
    loss = TaskLosses(tasks_of(), WEIGHTS)
    total = loss(outputs, targets)
    (values,) = loss.calls
    assert float(total.detach()) == pytest.approx(
        sum(WEIGHTS[name] * value.loss for name, value in values.items()), rel=1e-5
    )
    assert targets.shares is not None
    known = ~targets.shares.isnan().any(1)
    smooth = targets.shares[known] * 0.9 + 0.1 / K
    assert values["votes"].loss == pytest.approx(
        float(soft_ce(outputs[known, :K].detach(), smooth))
    )
    assert targets.values is not None
    errors = (outputs.detach()[:, K : K + A] - targets.values) ** 2
    assert values["attributes"].loss == pytest.approx(float(errors.nanmean()))


def test_a_task_without_targets_leaves_the_sum() -> None:
    """So that a batch that lacks them has neither their loss nor a gradient of it."""
    targets, outputs = targets_of(4), outputs_of(4)
    assert targets.values is not None
    one = torch.full_like(targets.values, torch.nan)
    one[0] = 0.5
    alone = Targets(targets.present, targets.labels, values=one).numbered()
    loss = TaskLosses(tasks_of("ccc")[:1] + tasks_of("ccc")[2:3], WEIGHTS)
    loss(outputs, alone).backward()
    assert loss.calls[0].keys() == {"classes"}
    assert outputs.grad is not None
    assert not outputs.grad[:, K:].any()
    nothing = TaskLosses(tasks_of("ccc")[2:3], WEIGHTS)
    assert nothing.size(alone) == 0.0
    assert float(nothing(outputs, alone).detach()) == 0.0


class Given(TaskLoss):
    """A loss that is a number."""

    def __init__(self, name: str, value: float) -> None:
        super().__init__(OUTPUTS)
        self.name, self.value = name, value

    def known(self, targets: Targets) -> Tensor:
        return targets.present

    def forward(self, outputs: Tensor, targets: Targets) -> Tensor:  # noqa: ARG002
        return outputs.sum() * 0 + self.value


def test_uncertainty_weighting_is_the_papers() -> None:
    case: dict[str, Any] = next(
        each for each in golden("targets.json")["cases"] if each["id"] == "uncertainty_weighting"
    )
    losses, s = case["inputs"]["losses"], case["inputs"]["log_variances"]
    loss = TaskLosses([Given(f"t{k}", value) for k, value in enumerate(losses)], {})
    loss.log_variances = torch.tensor(s, dtype=torch.float64, requires_grad=True)
    total = loss(torch.zeros(2, OUTPUTS.width, dtype=torch.float64), targets_of(2))
    total.backward()
    assert float(total.detach()) == pytest.approx(case["expected"]["total"], abs=1e-12)
    found = loss.log_variances.grad
    assert found is not None
    assert found.tolist() == pytest.approx(case["expected"]["gradient_log_variances"], abs=1e-12)
    assert not loss.state_dict()
    assert not list(loss.parameters())


def test_a_model_that_passes_labels_alone_is_told_what_to_pass() -> None:
    loss = TaskLosses(tasks_of(), WEIGHTS)
    with pytest.raises(ParamsError, match=r"passes classes alone .*batch.scored"):
        loss(outputs_of(2), torch.tensor([0, 1]))
