"""A running training's tensors for one checkpoint, put together from all processes.

Weights and the state of the optimiser, which are the same in all, are in it once, so that a
training goes on with another number of processes. Torch's generators are in it for each process;
one that had none before draws from where the first one's was.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from pipeline.resume import put_running, running
from pipeline.training_state import Training

GENERATORS = ("rng.cpu", "rng.cuda")


def gathered(training: Training) -> dict[str, Tensor]:
    """Tensors by name, as `pipeline.resume.running`; empty in all processes but the first.

    Generators of the others are `rng.cpu.<number>` and `rng.cuda.<number>`.
    """
    ranks, own = training.ranks, running(training)
    if ranks.count == 1:
        return own
    generators = {name: own.pop(name) for name in GENERATORS if name in own}
    tensors = {name: value.cpu() for name, value in own.items()} if ranks.is_first else {}
    for number, found in enumerate(ranks.gather(generators)):
        if ranks.is_first:
            tensors |= {_numbered(name, number): value for name, value in found.items()}
    return tensors


def put_gathered(training: Training, tensors: Mapping[str, Tensor]) -> None:
    """Put back what `gathered` returned in the first process, in any number of them."""
    ranks, own = training.ranks, dict(tensors)
    known = all(_numbered(name, ranks.number) in own for name in GENERATORS if name in own)
    for name in GENERATORS:
        if known and name in own:
            own[name] = own[_numbered(name, ranks.number)]
    put_running(training, own)
    if not known:
        ranks.draw_apart(tensors["rng.cpu"].tolist())


def _numbered(name: str, number: int) -> str:
    return f"{name}.{number}" if number else name
