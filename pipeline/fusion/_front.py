"""What surrounds the fusion itself in the `transformer`, `bigru_cross` and `hcam` models.

The MDAT paper's code (arXiv 2506.02088) projects speech and text frame by frame and fuses them.
F0 bins are averaged after their projection, a spectral vector (CED's) passes two layers, and both
by-pass the fusion. The vectors of all go to the classifier: speech | text | prosody | spectral.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from features.errors import ParamsError
from features.stream import Stream, StreamSpec
from pipeline.fusion._layers import CLASSIFIER_NAMES, PitchBranch, Projection, unmasked
from pipeline.model.base import check_slots
from pipeline.model.batch import Batch

FUSED = ("speech", "text")
SLOTS = (*FUSED, "prosody", "spectral")
PUBLIC_NAMES: dict[str, str | None] = {
    "audio_proj": "front.projections.speech",
    "text_proj": "front.projections.text",
    "f0_embedding": "front.projections.prosody.embedding",
    "f0_proj": "front.projections.prosody.projection",
    "mel_spec_encoder.proj_layer": "front.spectral",
    "mel_spec_encoder": None,  # the CED network: its vectors come from the cache
    **CLASSIFIER_NAMES,
}


class Front(nn.Module):
    """Projected sequences of speech and text, and one vector each of prosody and spectral.

    Args:
        specs: Streams by slot; any of speech, text, prosody (bins, or frames), spectral.
        d_model: Width D of a projected frame, of the embedding of bins, and of a vector.
        dropout: Rate after each projection.
        mask_padding: False takes padded frames for frames, as the public code does.
    """

    def __init__(
        self, specs: Mapping[str, StreamSpec], d_model: int, dropout: float, *, mask_padding: bool
    ) -> None:
        super().__init__()
        self.mask_padding = mask_padding
        self.projections = nn.ModuleDict()
        for slot in (*FUSED, "prosody"):
            if slot in specs:
                spec = specs[slot]
                self.projections[slot] = (
                    Projection(spec.dim, d_model, dropout)
                    if spec.bins is None
                    else PitchBranch(spec.bins, d_model, d_model, dropout)
                )
        self.spectral: nn.Sequential | None = None
        if "spectral" in specs:
            projection = Projection(specs["spectral"].dim, d_model, dropout)
            self.spectral = nn.Sequential(*projection, nn.Linear(d_model, d_model))

    @property
    def fused(self) -> list[str]:
        """Those of speech and text that are filled, in this order."""
        return [slot for slot in FUSED if slot in self.projections]

    def sequences(self, batch: Batch) -> dict[str, Stream]:
        """`[B, T, D]` of each of speech and text that is filled."""
        return {slot: self._projected(slot, batch) for slot in self.fused}

    def vectors(self, batch: Batch) -> list[Tensor]:
        """`[B, D]` of each of prosody (averaged) and spectral that is filled."""
        found: list[Tensor] = []
        if "prosody" in self.projections:
            found.append(self._projected("prosody", batch).mean())
        if self.spectral is not None:
            found.append(self.spectral(self._seen(batch.streams["spectral"]).mean()))
        return found

    def _projected(self, slot: str, batch: Batch) -> Stream:
        stream, projection = batch.streams[slot], self.projections[slot]
        if isinstance(projection, PitchBranch):
            # It marks padding with an index of its own, so it has to see the mask.
            return self._seen(projection(stream))
        return self._seen(Stream(projection(stream.values), stream.mask))

    def _seen(self, stream: Stream) -> Stream:
        return stream if self.mask_padding else unmasked(stream)


def check(
    model: str, specs: Mapping[str, StreamSpec], dropout: float, heads: int, width: int
) -> None:
    """Refuse streams that a model has no place for, and sizes that do not fit.

    Args:
        model: Name for the messages.
        specs: Streams by slot.
        dropout: Rate.
        heads: Attention heads.
        width: Width of the frames that they share.
    """
    check_slots(model, specs, SLOTS)
    binned = [slot for slot in specs if slot != "prosody" and specs[slot].bins is not None]
    if binned:
        raise ParamsError(
            f"{model}: the {binned[0]} slot holds bins; expected real-valued frames (bins go into "
            "the prosody slot)"
        )
    if not 0 <= dropout < 1:
        raise ParamsError(f"{model}: dropout {dropout}; expected 0 <= dropout < 1")
    if heads < 1 or width % heads:
        raise ParamsError(
            f"{model}: heads {heads}; expected a divisor of {width}, the width of its attention"
        )
