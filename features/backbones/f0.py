"""Fundamental frequency in mel bins, one each 20 ms, by the WORLD vocoder's estimators.

`harvest` is the more robust one, `dio` (refined by StoneMask) the faster one: about 8 and 60 times
faster than real time on one core. Morise et al. 2016 (WORLD), 2017 (Harvest); Python package
pyworld (MIT).
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch

from features.backbones._audio import HOP, SAMPLE_RATE, waveform
from features.backbones._backbone import BackboneFactory, Inputs, Reads
from features.errors import ParamsError
from features.manifest import Utterance
from features.pitch import Floats, hz_to_bin, interpolate_unvoiced
from features.stream import Stream, StreamSpec

MIN_SAMPLES = 1600  # 100 ms: below, WORLD has less than a few periods to look at


class F0:
    """Bins of the fundamental frequency.

    Args:
        method: Estimator.
        bins: Number of bins; bin 0 is kept for unvoiced frames.
        f_min: Lowest frequency in Hz.
        f_max: Highest frequency in Hz.
        unvoiced: `interpolate` fills gaps from their neighbours, as the MDAT code does; `bin0`
            keeps voicing visible. Fully unvoiced audio gives bin 1 throughout, or bin 0.
    """

    def __init__(
        self,
        *,
        method: Literal["harvest", "dio"] = "harvest",
        bins: int = 256,
        f_min: float = 50.0,
        f_max: float = 1100.0,
        unvoiced: Literal["interpolate", "bin0"] = "interpolate",
    ) -> None:
        if not 4 <= bins <= 32767 or not 0 < f_min < f_max:
            raise ParamsError(
                f"f0: bins {bins}, f_min {f_min}, f_max {f_max}; expected 4 <= bins <= 32767 "
                "and 0 < f_min < f_max"
            )
        self.spec = StreamSpec(dim=1, bins=bins, hop_seconds=HOP / SAMPLE_RATE)
        self.reads: Reads = "audio"
        self.trainable = False
        self.method, self.f_min, self.f_max, self.unvoiced = method, f_min, f_max, unvoiced

    def prepare(self, utterances: Sequence[Utterance]) -> Inputs:
        """Bins `[B, T]`, T = floor(L / 320); all the work is done here, on the CPU."""
        stream = Stream.pad([self._bins(u) for u in utterances])
        return Inputs(
            tuple(u.id for u in utterances), {"values": stream.values, "mask": stream.mask}
        )

    def __call__(self, inputs: Inputs) -> Stream:
        """The bins that `prepare` found."""
        return Stream(inputs.tensors["values"], inputs.tensors["mask"])

    def provenance(self) -> dict[str, Any]:
        """No weights."""
        return {"estimator": f"WORLD {self.method}", "scale": "1127 ln(1 + f / 700)"}

    def _bins(self, utterance: Utterance) -> torch.Tensor:
        samples = waveform(utterance, min_samples=MIN_SAMPLES)
        hz = self._track(samples.astype(np.float64))[: len(samples) // HOP]
        filled = interpolate_unvoiced(hz) if self.unvoiced == "interpolate" else hz
        assert self.spec.bins is not None
        index = hz_to_bin(filled, bins=self.spec.bins, f_min=self.f_min, f_max=self.f_max)
        if self.unvoiced == "bin0":
            index[hz == 0] = 0
        return torch.from_numpy(index)

    def _track(self, samples: Floats) -> Floats:
        with warnings.catch_warnings():
            # pyworld asks pkg_resources for its own version, which warns of its end.
            warnings.simplefilter("ignore")
            import pyworld  # here, since hosts that train may lack it

        period = 1000.0 * HOP / SAMPLE_RATE  # ms
        options = {"f0_floor": self.f_min, "f0_ceil": self.f_max, "frame_period": period}
        if self.method == "harvest":
            return np.asarray(pyworld.harvest(samples, SAMPLE_RATE, **options)[0])
        rough, times = pyworld.dio(samples, SAMPLE_RATE, **options)
        return np.asarray(pyworld.stonemask(samples, rough, times, SAMPLE_RATE))


build: BackboneFactory = F0
