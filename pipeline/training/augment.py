"""Augmentation of training batches: SeqAug and mixup.

All draws come from the training's generator, on the CPU, so that they can be repeated.

Shapes: B batch, T time, D width, K classes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from features.stream import Stream
from pipeline.model.batch import UNSCORED, Batch, Targets

SEQAUG_SLOTS = ("speech", "text")
SEQAUG_BETA = 0.5


def seqaug(batch: Batch, probability: float, generator: np.random.Generator) -> Batch:
    """Shuffle some dimensions of the speech and the text in time (SeqAug, arXiv 2305.01954).

    Each slot of each utterance is changed independently, with this probability: a share
    ~ Beta(0.5, 0.5) of its dimensions, at least one, gets one common permutation of the frames
    that exist. The settings are those of arXiv 2506.02088, which leaves F0 unchanged; other slots
    are not changed either.

    Args:
        batch: Utterances; not changed.
        probability: Probability that a slot of an utterance is changed.
        generator: Generator of all draws.
    """
    streams = dict(batch.streams)
    for slot in SEQAUG_SLOTS:
        if slot in streams and streams[slot].values.is_floating_point():
            streams[slot] = _shuffled(streams[slot], probability, generator)
    return dataclasses.replace(batch, streams=streams)


def _shuffled(stream: Stream, probability: float, generator: np.random.Generator) -> Stream:
    values = stream.values.clone()
    width = values.shape[2]
    chosen = generator.random(len(values)) < probability
    for row in np.flatnonzero(chosen):
        count = max(int(generator.beta(SEQAUG_BETA, SEQAUG_BETA) * width), 1)
        dims = torch.from_numpy(generator.permutation(width)[:count])
        frames = stream.mask[row].nonzero().squeeze(1)  # padding is not moved
        order = frames[torch.from_numpy(generator.permutation(len(frames)))]
        values[row, frames[:, None], dims] = stream.values[row, order[:, None], dims]
    return Stream(values, stream.mask)


def mixup(batch: Batch, alpha: float, classes: int, generator: np.random.Generator) -> Batch:
    """Blend each utterance with another of the batch that has another class (arXiv 1710.09412).

    x = m x_i + (1 - m) x_j with m ~ Beta(alpha, alpha), where padding counts as zeros and a frame
    exists if it exists in either; labels become shares. Bins cannot be blended: those of i are
    kept. An utterance is not changed if the batch has no other class.

    Other targets are blended by the same share where both have them, and unknown elsewhere. Without
    a task about classes any other utterance may be drawn.

    The public code of arXiv 2506.02088 draws the other utterance from the whole split and mixes
    waveforms, only with probability alpha; cached features are mixed within the batch.

    Args:
        batch: Utterances, with labels `[B]` or targets; not changed.
        alpha: Parameter of the Beta distribution, above 0.
        classes: Number of classes K.
        generator: Generator of all draws.

    Returns:
        The batch with labels `[B, K]` float32, of its targets if it has any.
    """
    assert batch.labels is not None
    kinds = batch.labels if batch.targets is None else _kinds(batch.targets)
    mates = torch.tensor(_mates(kinds.tolist(), generator))
    drawn = generator.beta(alpha, alpha, len(mates))
    share = torch.from_numpy(drawn).float().masked_fill(mates == torch.arange(len(mates)), 1.0)
    streams = {slot: _blend(stream, mates, share) for slot, stream in batch.streams.items()}
    if batch.targets is not None:
        targets = _blended(batch.targets, mates, share[:, None], classes)
        return dataclasses.replace(batch, streams=streams, targets=targets)
    hot = F.one_hot(batch.labels, classes).float()
    labels = share[:, None] * hot + (1 - share[:, None]) * hot[mates]
    return dataclasses.replace(batch, streams=streams, labels=labels)


def _kinds(targets: Targets) -> Tensor:
    """What must differ between an utterance and its mate, `[B]`: class, or else the utterance."""
    labels = targets.labels
    return labels if bool((labels != UNSCORED).any()) else torch.arange(len(labels))


def _blended(targets: Targets, mates: Tensor, share: Tensor, classes: int) -> Targets:
    def mixed(values: Tensor | None) -> Tensor | None:
        # What is unknown of either is NaN, and so is the sum.
        return None if values is None else share * values + (1 - share) * values[mates]

    labels, known = targets.labels, targets.labels != UNSCORED
    if bool(known.any()):
        hot = F.one_hot(labels.clamp(min=0), classes).float()
        hot[~known] = math.nan
        labels = share * hot + (1 - share) * hot[mates]
    return dataclasses.replace(
        targets,
        labels=labels,
        shares=mixed(targets.shares),
        values=mixed(targets.values),
        genders=mixed(targets.genders),
        whole=None,
        places=None,
    ).numbered()


def _blend(stream: Stream, mates: Tensor, share: Tensor) -> Stream:
    if not stream.values.is_floating_point():
        return stream
    part = share[:, None, None].to(stream.values.dtype)
    # Frames beyond the mask hold zeros (docs/format.md), so that the shorter one adds nothing.
    values = part * stream.values + (1 - part) * stream.values[mates]
    alone = (share == 1)[:, None]  # not blended: frames of the other must not appear as zeros
    return Stream(values, torch.where(alone, stream.mask, stream.mask | stream.mask[mates]))


def _mates(labels: Sequence[int], generator: np.random.Generator) -> list[int]:
    mates = []
    for row, label in enumerate(labels):
        others = [i for i, other in enumerate(labels) if other != label]
        mates.append(int(generator.choice(others)) if others else row)  # itself: not blended
    return mates
