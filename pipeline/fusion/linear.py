"""Linear classifier on concatenated embeddings: the "Linear" baseline of LPGNet (arXiv 2508.08925).

The paper applies "a simple linear classifier" to the BERT and emotion2vec embeddings of an
utterance, to tell the worth of the features from that of its network: 6,148 parameters for two
slots of 768 and 4 classes. Frames are averaged over time first. There is no context, no hidden
layer and no dropout. With one slot it is the linear downstream model of the paper's Table 4.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from features.stream import StreamSpec
from pipeline.model.base import FusionFactory, FusionModel, check_slots
from pipeline.model.batch import Batch, Prediction

ORDER = ("text", "speech", "nonverbal", "spectral")


class Linear(FusionModel):
    """W [mean_1; ...; mean_M] + b, where mean_m is the time average of a slot.

    Args:
        specs: Streams by slot; any of text, speech, nonverbal, spectral.
        classes: Number of classes K.
    """

    def __init__(self, specs: Mapping[str, StreamSpec], classes: int) -> None:
        super().__init__()
        check_slots("linear", specs, ORDER)
        self.slots = [slot for slot in ORDER if slot in specs]
        self.classifier = nn.Linear(sum(specs[slot].dim for slot in self.slots), classes)

    def forward(self, batch: Batch) -> Prediction:
        """Logits `[B, K]`."""
        means = [batch.streams[slot].mean() for slot in self.slots]
        return Prediction(self.classifier(torch.cat(means, dim=1)))


build: FusionFactory = Linear
