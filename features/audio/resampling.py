"""Resamples audio block by block: a sinc in a Kaiser window, its kernel cached per pair of rates.

torchaudio's default, 6 zero crossings of the sinc, is too short a filter: from 44.1 kHz a tone at
8.6 kHz came out as one at 7.4 kHz, only 12 dB weaker, and one at 7.2 kHz lost 2.4 dB. This filter
has 48. It is applied block by block, so that a long recording does not lie in memory at its old
rate, and computes several samples at once, which makes 48 to 16 kHz a product of matrices: ten
times as fast. torch is imported on first use, so that `prepare` does without.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

RATES_HZ = (4_000, 768_000)  # other rates come from damaged headers
# Coefficients of the largest kernel, 64 MiB; the one from 44.1 to 16 kHz has 115,000.
LARGEST_KERNEL = 2**24
# From 44.1 or 48 kHz, 7.4 kHz loses 0.2 dB and 8.1 kHz is 89 dB down, as this module's tests show.
ZERO_CROSSINGS = 48
ROLLOFF = 0.96  # frequency at half the amplitude, as a share of half the lower rate
BETA = 8.0
IDENTITY = {"window": "kaiser", "zeros": ZERO_CROSSINGS, "rolloff": ROLLOFF, "beta": BETA}
"""Settings that determine the samples, for the provenance of features from audio. Library versions
are none of them: the coefficients are a formula of these, to which tests hold the result."""
_AT_ONCE = 16  # least number of samples of the new rate computed per place: 16 are the fastest

Samples = NDArray[np.float32]
Part = tuple[int, int | None]  # first sample, and the one behind the last; None: to the end


def resamplable(from_hz: int, to_hz: int) -> bool:
    """Whether a rate is plausible for audio, and the kernel for the pair of rates is small enough.

    The kernel has one filter for each sample of the new rate in a common period, each at least
    that period long: 16,001 Hz to 16,000 Hz would take 256 million coefficients.
    """
    common = math.gcd(from_hz, to_hz)
    kernel = from_hz // common * (to_hz // common)
    return RATES_HZ[0] <= from_hz <= RATES_HZ[1] and kernel <= LARGEST_KERNEL


def resampled(blocks: Iterable[Samples], from_hz: int, to_hz: int) -> Iterator[Samples]:
    """Resample blocks of samples, `[L]` in all, to blocks of `[ceil(L * to_hz / from_hz)]` in all.

    Frequencies above half the lower rate are removed. The recording is padded with zeros.
    """
    kernel = _kernel(from_hz, to_hz)
    taken = given = 0
    held = np.zeros(kernel.before, np.float32)
    for block in blocks:
        taken += len(block)
        made, held = kernel.apply(np.concatenate([held, block]))
        given += len(made)
        yield made
    wanted = -(-taken * to_hz // from_hz)
    missing = -(-(wanted - given) // kernel.outputs)
    length = kernel.reach + (missing - 1) * kernel.stride
    made, _ = kernel.apply(np.pad(held, (0, max(0, length - len(held)))))
    yield made[: wanted - given]


def needed(from_hz: int, to_hz: int, part: Part, length: int) -> tuple[int, int, int]:
    """What of a recording to resample for a part of the result, so that it is as of the whole.

    Args:
        from_hz: Rate of the recording.
        to_hz: Rate of the result.
        part: First sample at the new rate, and the one behind the last; None: to the end.
        length: Samples of the recording.

    Returns:
        First sample of the recording, the one behind the last, and how many samples of the new
        rate to leave out at the beginning of what is resampled.
    """
    first, last = part
    if from_hz == to_hz:
        return first, length if last is None else min(last, length), 0
    kernel = _kernel(from_hz, to_hz)
    # Whole places of the kernel, as many earlier as it reaches: else it would see zeros instead.
    place = max(0, first // kernel.outputs - -(-kernel.before // kernel.stride))
    end = length
    if last is not None:
        end = min(length, -(-last // kernel.outputs) * kernel.stride + kernel.reach)
    return place * kernel.stride, end, first - place * kernel.outputs


@dataclass(frozen=True)
class _Kernel:
    """Filters for `outputs` consecutive samples, applied every `stride` samples of the old rate.

    Attributes:
        filters: Coefficients `[outputs, 1, reach]`.
        outputs: Number of samples of the new rate per place.
        stride: Samples of the old rate from one place to the next.
        reach: Length of the filters in samples of the old rate.
        before: Number of those samples before the time of the first output.
    """

    filters: Any
    outputs: int
    stride: int
    reach: int
    before: int

    def apply(self, samples: Samples) -> tuple[Samples, Samples]:
        """Outputs of all places that fit, and the samples from the next place on."""
        import torch

        places = (len(samples) - self.reach) // self.stride + 1
        if places < 1:
            return np.empty(0, np.float32), samples
        with torch.inference_mode():
            made = torch.nn.functional.conv1d(
                torch.from_numpy(samples)[None, None], self.filters, stride=self.stride
            )
            flat: Samples = made[0].T.reshape(-1).numpy()
        return flat, samples[places * self.stride :]


@functools.lru_cache(maxsize=16)
def _kernel(from_hz: int, to_hz: int) -> _Kernel:
    import torch

    common = math.gcd(from_hz, to_hz)
    period, outputs = from_hz // common, to_hz // common
    # Output n is the sum over samples k of x[k] w(t) cutoff / period sinc(t), t = (k / period -
    # n / outputs) cutoff, times in common periods: `cutoff` zero crossings of the sinc in each.
    cutoff = min(period, outputs) * ROLLOFF
    before = math.ceil(ZERO_CROSSINGS * period / cutoff)
    times = -(-_AT_ONCE // outputs)
    reach = 2 * before + times * period
    old = np.arange(-before, reach - before) / period
    new = np.arange(times * outputs)[:, None] / outputs
    at = (old - new) * cutoff
    edge = np.clip(at / ZERO_CROSSINGS, -1, 1)
    window = np.where(abs(edge) < 1, np.i0(BETA * np.sqrt(1 - edge**2)) / np.i0(BETA), 0)
    filters = torch.from_numpy(np.sinc(at) * window * cutoff / period).float()[:, None]
    return _Kernel(filters, times * outputs, times * period, reach, before)
