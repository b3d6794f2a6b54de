"""eGeMAPS: 88 statistics of a clip's voice, the baseline of most papers (Eyben et al. 2016).

IEEE Trans. Affective Computing 7(2). Version v02: functionals (means, deviations, percentiles,
slopes, peaks) of pitch, loudness, formants, jitter, shimmer, spectral balance and MFCC, by
openSMILE, an optional extra: `pip install -e '.[egemaps]'`. One vector an utterance, about 50
times faster than real time on one core.

openSMILE is under the audEERING research licence: non-commercial use, and commercial research
without product development; products need a licence of audEERING.

Values have their own units (semitones, Hz, dB, seconds), from thousandths to thousands: store them
as float32 and standardise them (`inputs.standardize`). Of digital silence they are finite: 0, or
the feature's floor, such as -201 dB of a formant and -120 dB of the whole.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from features.backbone.base import BackboneFactory, Inputs, Reads
from features.backbones._audio import SAMPLE_RATE, waveform
from features.corpus.utterance import Utterance
from features.errors import CheckpointError, UtteranceError
from features.stream import Stream, StreamSpec

FEATURES = 88
MIN_SAMPLES = 960  # samples of one frame of the pitch: 60 ms


class Egemaps:
    """Functionals of eGeMAPS v02 of each clip, at 16 kHz, channels averaged."""

    reads: Reads = "audio"
    spec = StreamSpec(dim=FEATURES)  # of the class: known where openSMILE is not installed
    trainable = False

    def __init__(self) -> None:
        self.version, self.smile = _opensmile()

    def prepare(self, utterances: Sequence[Utterance]) -> Inputs:
        """Vectors `[B, 1, 88]`; all the work is done here, on the CPU."""
        vectors = [self._vector(utterance) for utterance in utterances]
        return Inputs.of(utterances, values=torch.stack(vectors)[:, None])

    def __call__(self, inputs: Inputs) -> Stream:
        """Values `[B, 1, 88]`."""
        values = inputs.tensors["values"]
        return Stream(values, values.new_ones(values.shape[:2], dtype=torch.bool))

    def provenance(self) -> dict[str, Any]:
        """Feature set, openSMILE's version, and the names of the 88 values in their order."""
        return {
            "feature_set": "eGeMAPSv02 functionals",
            "opensmile": self.version,
            "features": list(self.smile.feature_names),
        }

    def _vector(self, utterance: Utterance) -> Tensor:
        clip = waveform(utterance, min_samples=MIN_SAMPLES)
        # Another thread or process has its own openSMILE, which each call makes afresh.
        values: NDArray[np.float32] = self.smile(clip, SAMPLE_RATE)[0, :, 0]
        bad = [
            name
            for name, value in zip(self.smile.feature_names, values, strict=True)
            if not np.isfinite(value)
        ]
        if bad:
            raise UtteranceError(
                utterance.id, f"has {len(bad)} eGeMAPS features that are not finite: {bad[:3]}"
            )
        return torch.from_numpy(values.copy())


def _opensmile() -> tuple[str, Any]:
    """Version of the package, and its extractor of eGeMAPS functionals."""
    try:
        import opensmile
    except (ImportError, OSError) as error:  # an OSError, if its library is of another platform
        raise CheckpointError(
            f"backbone kind 'egemaps' needs openSMILE, which cannot be imported ({error}): "
            "`pip install -e '.[egemaps]'` in a clone, under the audEERING research "
            "licence, which allows no commercial use"
        ) from error
    sets, levels = opensmile.FeatureSet, opensmile.FeatureLevel
    smile = opensmile.Smile(feature_set=sets.eGeMAPSv02, feature_level=levels.Functionals)
    return str(opensmile.__version__), smile


build: BackboneFactory = Egemaps
