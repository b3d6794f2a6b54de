"""Padded batches of sequences of different lengths, and the type of their frames.

torch is imported where tensors are made, so that a cache can be read as arrays without it.

Shapes: B batch, T time (frames of an utterance or turns of a dialogue), D width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class StreamSpec:
    """Type of the frames that a backbone computes and a cache holds.

    Attributes:
        dim: Width D of a frame; 1 for bins.
        bins: Number of values an integer bin can take, or None for real-valued frames.
        hop_seconds: Seconds from one frame to the next; None where frames are not evenly spaced
            in time (tokens, pooled vectors).
        layers: Number of hidden states concatenated in a frame, each `dim / layers` wide: a
            model may mix them with learned weights, or take them as one vector.
    """

    dim: int
    bins: int | None = None
    hop_seconds: float | None = None
    layers: int = 1

    def to_dict(self) -> dict[str, Any]:
        """Convert to a mapping for JSON; `StreamSpec(**spec.to_dict()) == spec`."""
        fields = asdict(self)
        if self.layers == 1:
            del fields["layers"]  # as in files from before layers were stored: docs/format.md
        return fields


@dataclass(frozen=True)
class Stream:
    """Padded sequences, with a mask of the frames that exist.

    Attributes:
        values: `[B, T, D]` floating point, or `[B, T]` integer bins.
        mask: `[B, T]` bool, True where a frame exists. Frames beyond it hold zeros.
    """

    values: Tensor
    mask: Tensor

    @classmethod
    def pad(cls, sequences: Sequence[Tensor]) -> Self:
        """Stack `B` sequences `[T_i, D]` or `[T_i]` to one stream, with zeros after the shorter.

        >>> import torch
        >>> stream = Stream.pad([torch.ones(2, 3), torch.ones(1, 3)])
        >>> stream.values.shape, stream.mask.tolist()
        (torch.Size([2, 2, 3]), [[True, True], [True, False]])
        """
        import torch

        lengths = torch.tensor([len(sequence) for sequence in sequences])
        values = torch.nn.utils.rnn.pad_sequence(list(sequences), batch_first=True)
        return cls(values, torch.arange(values.shape[1]) < lengths[:, None])

    @classmethod
    def masked(cls, values: Tensor, lengths: Tensor) -> Self:
        """Stream of the first `lengths` `[B]` frames of `[B, T, D]`; the others become 0."""
        import torch

        mask = torch.arange(values.shape[1], device=values.device) < lengths[:, None]
        return cls(values * mask[..., None], mask)

    def unpad(self) -> list[Tensor]:
        """The sequences `[T_i, D]` or `[T_i]` without padding; inverse of `pad`."""
        lengths = self.mask.sum(1).tolist()
        return [values[:length] for values, length in zip(self.values, lengths, strict=True)]

    def mean(self) -> Tensor:
        """Mean over the frames that exist, `[B, D]`; zeros where there are none."""
        weights = self.mask.unsqueeze(-1).to(self.values.dtype)
        # Without a frame the sum is 0, and so is 0 / 1.
        return (self.values * weights).sum(1) / weights.sum(1).clamp(min=1)

    def std(self) -> Tensor:
        """Population standard deviation of the frames that exist, `[B, D]` in float32 at least.

        Zeros where there is one frame, or none.
        """
        import torch

        # Squares of half precision would lose digits, or overflow above 256.
        values = self.values.to(torch.promote_types(self.values.dtype, torch.float32))
        weights = self.mask.unsqueeze(-1).to(values.dtype)
        return weighted_statistics(values, weights / weights.sum(1, keepdim=True).clamp(min=1))[1]

    def first(self) -> Tensor:
        """The first frame, `[B, D]` (the [CLS] or <s> of a text encoder)."""
        return self.values[:, 0]

    def to(self, device: torch.device | str, *, dtype: torch.dtype | None = None) -> Self:
        """The stream on another device; `dtype` converts real-valued frames only."""
        from features.process.devices import moved

        # Bins are indices of an embedding, and stay integers.
        kind = dtype if self.values.is_floating_point() else None
        return type(self)(moved(self.values, device, kind), moved(self.mask, device))


def weighted_statistics(values: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Weighted mean over time, and standard deviation around it, `[B, D]` each.

    Args:
        values: `[B, T, D]`.
        weights: `[B, T, 1]`, or `[B, T, D]` for weights of each feature; they sum to 1 over T, and
            are 0 at padding.

    Returns:
        mean = sum_t w_t x_t, and sqrt(sum_t w_t (x_t - mean)^2).
    """
    mean = (weights * values).sum(1)
    variance = (weights * (values - mean[:, None]).square()).sum(1)
    varies = variance > 0
    # A deviation of 0 has no derivative, and that of sqrt is infinite there, so that training would
    # meet NaN: its gradient is set to 0. Above 0 the gradient of x_t is at most sqrt(w_t).
    return mean, variance.where(varies, 1).sqrt().where(varies, 0)
