"""Learning rates step by step, against torch's schedulers where it has them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import numpy as np
import pytest
import torch

from pipeline.training.schedules import Schedule


def rates(schedule: Schedule, steps: int) -> list[float]:
    found = []
    for _ in range(steps):
        found.append(schedule.rate)
        schedule.step += 1
    return found


def test_warm_up_then_cosine_of_the_paper() -> None:
    """ArXiv 2506.02088: 500 steps from 1e-5 to 5e-5, then a cosine to 1e-5 at the last step."""
    found = rates(Schedule("cosine", 5e-5, steps=2001, warmup=500, ends=(1e-5, 1e-5)), 2001)
    assert found[0] == 1e-5
    assert np.allclose(np.diff(found[:501]), 4e-5 / 500)
    assert found[500] == 5e-5 == max(found)
    assert found[1250] == pytest.approx(3e-5)  # half of the way, half of the cosine
    assert found[2000] == pytest.approx(1e-5)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=5e-5)
    oracle = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=1500, eta_min=1e-5)
    for rate in found[500:]:
        assert rate == pytest.approx(oracle.get_last_lr()[0], rel=1e-6)
        optimizer.step()
        oracle.step()


@pytest.mark.parametrize("kind", ["constant", "plateau"])
def test_warm_up_leads_to_the_rate_of_any_schedule(kind: str) -> None:
    schedule = Schedule(kind, 1.0, steps=10, warmup=4, ends=(0.2, 0.0))  # type: ignore[arg-type]
    assert rates(schedule, 6) == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0, 1.0])


def test_a_cosine_without_room_is_still_a_rate() -> None:
    for steps, warmup in ((1, 0), (3, 3), (3, 9)):
        found = rates(Schedule("cosine", 1.0, steps=steps, warmup=warmup, ends=(0.5, 0.1)), 4)
        assert all(0 < rate <= 1 for rate in found)


LOSSES = {
    "falls": [1 / n for n in range(1, 12)],
    "flat": [1.0] * 14,
    "saws": [1.0, 0.9, 1.1, 0.95, 0.9, 0.8999, 0.5, 0.6, 0.7, 0.8, 0.9, 0.4, 0.5, 0.6],
    "nan": [1.0, math.nan, math.inf, math.nan, math.nan, 0.5, 0.6, 0.7, 0.8],
}


@pytest.mark.parametrize("losses", LOSSES.values(), ids=LOSSES.keys())
@pytest.mark.parametrize("rate", [1e-2, 3e-8])
@pytest.mark.parametrize("plateau", [(0.5, 2), (0.1, 0), (0.9, 4)])
def test_plateau_is_torchs(
    losses: Sequence[float], rate: float, plateau: tuple[float, int]
) -> None:
    schedule = Schedule("plateau", rate, steps=100, plateau=plateau)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=rate)
    factor, patience = plateau
    oracle = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, factor=factor, patience=patience)
    for loss in losses:
        schedule.epoch_ended(loss)
        oracle.step(loss)
        assert schedule.rate == optimizer.param_groups[0]["lr"]


@pytest.mark.parametrize("kind", ["constant", "plateau", "cosine"])
def test_state_goes_through_json(kind: str) -> None:
    def made() -> Schedule:
        return Schedule(kind, 1.0, steps=40, warmup=3, ends=(0.1, 0.2))  # type: ignore[arg-type]

    whole, first = made(), made()
    expected = []
    for epoch in range(8):
        expected += rates(whole, 5)
        whole.epoch_ended(1.0)
        if epoch < 4:
            rates(first, 5)
            first.epoch_ended(1.0)
    second = made()
    second.restore(json.loads(json.dumps(first.state())))
    found = []
    for _ in range(4):
        found += rates(second, 5)
        second.epoch_ended(1.0)
    assert found == expected[20:]
