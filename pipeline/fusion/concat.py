"""Concatenation of pooled modalities: the "simple" baseline of the MDAT paper (arXiv 2506.02088).

Each real-valued stream is averaged over time, projected, and concatenated; an MLP classifies. F0
bins are embedded and projected before they are averaged. Reference layout and golden vectors:
specs.md §2.3; 2,238,472 parameters for speech 1280 and text 1024 wide, 8 classes. With one slot
filled it is the unimodal baseline.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from features.stream import Stream, StreamSpec
from pipeline.batch import Batch, Prediction
from pipeline.fusion._model import FusionFactory, FusionModel, check_slots

ORDER = ("speech", "nonverbal", "text", "prosody", "spectral")


class Branch(nn.Module):
    """One modality to one vector: mean over time, then Linear, ReLU, Dropout.

    Args:
        spec: The stream; bins get an embedding of width `d_model`, one index more than bins for
            padding.
        d_model: Width D of the vector.
        dropout: Rate after the projection.
    """

    def __init__(self, spec: StreamSpec, d_model: int, dropout: float) -> None:
        super().__init__()
        self.bins = spec.bins
        self.embedding = None if spec.bins is None else nn.Embedding(spec.bins + 1, d_model)
        self.projection = nn.Sequential(
            nn.Linear(d_model if spec.bins else spec.dim, d_model), nn.ReLU(), nn.Dropout(dropout)
        )

    def forward(self, stream: Stream) -> Tensor:
        """`[B, D]`."""
        if self.embedding is None:
            projected: Tensor = self.projection(stream.mean())
            return projected
        bins = stream.values.masked_fill(~stream.mask, self.embedding.num_embeddings - 1)
        return Stream(self.projection(self.embedding(bins)), stream.mask).mean()


class Concat(FusionModel):
    """Pool, project, concatenate, classify.

    Args:
        specs: Streams by slot; any.
        classes: Number of classes K.
        d_model: Width D of each modality's vector.
        hidden: Hidden width of the classifier; None: as wide as its input.
        dropout: Rate in branches and classifier.
    """

    def __init__(
        self,
        specs: Mapping[str, StreamSpec],
        classes: int,
        *,
        d_model: int = 512,
        hidden: int | None = None,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        check_slots("concat", specs, ORDER)
        self.branches = nn.ModuleDict(
            {slot: Branch(specs[slot], d_model, dropout) for slot in ORDER if slot in specs}
        )
        width = d_model * len(self.branches)
        hidden = hidden or width
        layers = nn.Linear(width, hidden), nn.Linear(hidden, classes)
        self.classifier = nn.Sequential(layers[0], nn.ReLU(), nn.Dropout(dropout), layers[1])
        for layer in layers:
            nn.init.kaiming_uniform_(layer.weight, nonlinearity="relu")
            nn.init.zeros_(layer.bias)

    def forward(self, batch: Batch) -> Prediction:
        """Logits `[B, K]`."""
        vectors = [branch(batch.streams[slot]) for slot, branch in self.branches.items()]
        return Prediction(self.classifier(torch.cat(vectors, dim=1)))


build: FusionFactory = Concat
