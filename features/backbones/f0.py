"""Fundamental frequency in mel bins, or in Hz, one each 20 ms, by one of three estimators.

`harvest` (more robust) and `dio` (refined by StoneMask; faster) are those of the WORLD vocoder:
about 8 and 60 times faster than real time on one core. Morise et al. 2016 (WORLD), 2017 (Harvest);
Python package pyworld (MIT). `rmvpe` is the network of the MDAT paper (arXiv 2506.02088; Wei et al.
2023, arXiv 2306.15412), made for voices over music: 90 M parameters, which have to be downloaded
(RVC's are MIT), 11 times faster than real time on one core.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from functools import partial
from types import MappingProxyType
from typing import Annotated, Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from features.audio.pitch import Floats, hz_to_bin, interpolate_unvoiced, resize_nearest
from features.backbone.base import BackboneFactory, Inputs, Networked, Reads
from features.backbone.layers import freeze
from features.backbones._audio import HOP, SAMPLE_RATE, waveform
from features.corpus.utterance import Utterance
from features.errors import CheckpointError, ParamsError
from features.networks import rmvpe
from features.ranges import Interval, Share
from features.stream import Stream, StreamSpec
from features.weights.checkpoint import Checkpoint
from features.weights.identity import weights_sha256

MIN_SAMPLES = 1600  # 100 ms: WORLD needs a few periods of the pitch
FILES = ("rmvpe.pt", "model.pt", "model.safetensors", "rmvpe.safetensors")
MOST_BINS = 32_767  # of int16
Pitch = Annotated[float, Interval(ge=20, le=SAMPLE_RATE // 2)]  # Hz; Harvest takes hours below
SCALES = {
    "bins": "1127 ln(1 + f / 700)",
    "hz": "Hz",
    "log_hz": "ln(f / 1 Hz), and 1 where voiced",
}


class F0(Networked):
    """Bins of the fundamental frequency, or its values.

    Args:
        method: Estimator.
        values: Frames: `bins`; `hz`, 1 wide, the "raw F0" that the MDAT paper compares them with;
            or `log_hz`, 2 wide, its natural logarithm beside 1 for voiced frames and 0 for others.
            A frame of 0 Hz is 0 in both.
        bins: Number of bins; bin 0 is reserved for unvoiced frames.
        f_min: Lowest frequency in Hz. WORLD does not search below it; what RMVPE finds below it
            falls into bin 1, or is kept in Hz.
        f_max: Highest frequency in Hz; above it, the same holds for the last bin.
        unvoiced: `interpolate` fills gaps from their neighbours, as the MDAT code does; `bin0`
            keeps voicing visible, as bin 0 or 0 Hz. Fully unvoiced audio gives bin 1 throughout,
            or bin 0; in Hz it gives 0 with both.
        checkpoint: Hub id, folder or file of RMVPE's weights; only `rmvpe` needs one.
        revision: Commit of the hub repository.
        threshold: Salience above which a frame is voiced for RMVPE. RVC uses 0.03, the MDAT code
            0.05.
    """

    reads: Reads = "audio"
    files = FILES
    added = MappingProxyType({"values": "bins"})

    def __init__(
        self,
        *,
        method: Literal["harvest", "dio", "rmvpe"] = "harvest",
        values: Literal["bins", "hz", "log_hz"] = "bins",
        bins: Annotated[int, Interval(ge=4, le=MOST_BINS)] = 256,
        f_min: Pitch = 50.0,
        f_max: Pitch = 1100.0,
        unvoiced: Literal["interpolate", "bin0"] = "interpolate",
        checkpoint: str | None = None,
        revision: str | None = None,
        threshold: Share = 0.03,
    ) -> None:
        if not 4 <= bins <= MOST_BINS or not 0 < f_min < f_max:
            raise ParamsError(
                f"f0: bins {bins}, f_min {f_min}, f_max {f_max}; expected 4 <= bins <= {MOST_BINS} "
                "and 0 < f_min < f_max"
            )
        if not 0 <= threshold < 1:
            raise ParamsError(f"f0: threshold {threshold}; expected 0 <= threshold < 1")
        self.spec = StreamSpec(
            dim=2 if values == "log_hz" else 1,
            bins=self.bins_of(values=values, bins=bins),
            hop_seconds=HOP / SAMPLE_RATE,
        )
        self.trainable = False  # no estimator has a gradient
        self.method, self.values = method, values
        self.f_min, self.f_max, self.unvoiced = f_min, f_max, unvoiced
        self.threshold = threshold
        if method == "rmvpe":
            self.cpu_batch_seconds = 20.0  # its inner stages and its GRU wait for their weights
            self.source = _source(checkpoint, revision)
            weights = self.source.tensors(FILES)
            self.network = rmvpe.build(weights, source=self.source.name)
            freeze(self.network)

    @staticmethod
    def bins_of(*, values: str = "bins", bins: int = 256, **_others: Any) -> int | None:
        """Number of bins of an entry with these options; None if its frames are numbers."""
        return bins if values == "bins" else None

    def prepare(self, utterances: Sequence[Utterance]) -> Inputs:
        """WORLD: frames of `__call__`; all the work is done here, on the CPU.

        RMVPE: log-mel `[B, 128, F]` padded with zeros, the number of frames of each clip
        (`mel_frames`) and of its 20 ms frames (`frames`).
        """
        clips = [waveform(u, min_samples=MIN_SAMPLES) for u in utterances]
        if self.method != "rmvpe":
            stream = Stream.pad([self._frames(self._world(clip)) for clip in clips])
            return Inputs.of(utterances, values=stream.values, mask=stream.mask)
        mels = [rmvpe.log_mel(clip) for clip in clips]
        mel_frames = torch.tensor([mel.shape[1] for mel in mels])
        longest = rmvpe.padded_frames(int(mel_frames.max()))
        together = torch.zeros(len(mels), rmvpe.N_MELS, longest)
        for row, mel in zip(together, mels, strict=True):
            row[:, : mel.shape[1]] = mel
        frames = torch.tensor([len(clip) // HOP for clip in clips])
        return Inputs.of(utterances, mel=together, mel_frames=mel_frames, frames=frames)

    def __call__(self, inputs: Inputs) -> Stream:
        """Bins `[B, T]`, or values `[B, T, D]`; T = floor(L / 320)."""
        tensors = inputs.tensors
        if self.method != "rmvpe":
            return Stream(tensors["values"], tensors["mask"])
        frames = tensors["frames"].tolist()
        tracks: list[Tensor] = [torch.empty(0)] * len(frames)
        for index, salience in self._saliences(inputs):
            hz = rmvpe.salience_to_hz(salience, threshold=self.threshold)
            tracks[index] = self._frames(resize_nearest(hz, frames[index]))
        return Stream.pad(tracks).to(tensors["mel"].device)

    def provenance(self) -> dict[str, Any]:
        """The estimator; of RMVPE also checkpoint, threshold and hash of the weights."""
        if self.method != "rmvpe":
            return {"estimator": f"WORLD {self.method}", "scale": SCALES[self.values]}
        return {
            "estimator": "RMVPE",
            **self.source.provenance(FILES),
            "mel": f"{rmvpe.N_MELS} bands, each {rmvpe.HOP} samples",
            "threshold": self.threshold,
            "scale": SCALES[self.values],
            "weights_sha256": weights_sha256(self.network),
        }

    def _saliences(self, inputs: Inputs) -> Iterator[tuple[int, NDArray[np.float32]]]:
        """Index in the batch and salience `[F, 360]` of each clip."""
        # One pass for all clips that the network pads to one length: its GRU reads the padding, so
        # any other length would change the numbers.
        mel, mel_frames = inputs.tensors["mel"], inputs.tensors["mel_frames"].tolist()
        groups: dict[int, list[int]] = {}
        for index, count in enumerate(mel_frames):
            groups.setdefault(rmvpe.padded_frames(count), []).append(index)
        for length, indices in groups.items():
            rows = mel[indices, :, :length]
            group = inputs.once(partial(self.network, rows)).float().cpu().numpy()
            for index, salience in zip(indices, group, strict=True):
                if not np.isfinite(salience).all():
                    raise CheckpointError(
                        f"RMVPE ({self.source.name!r}) gives a salience that is not finite for "
                        f"utterance {inputs.ids[index]!r}; expected 0 to 1: set `compute_dtype: "
                        "float32`, or download the checkpoint again"
                    )
                yield index, salience[: mel_frames[index]]

    def _frames(self, hz: Floats) -> Tensor:
        """Bins `[T]`, or values `[T, D]`, of a track in Hz, 0 where unvoiced."""
        filled = interpolate_unvoiced(hz) if self.unvoiced == "interpolate" else hz
        if self.spec.bins is None:
            columns = [filled]
            if self.values == "log_hz":
                columns = [np.log(np.where(filled > 0, filled, 1.0)), (hz > 0).astype(np.float64)]
            return torch.from_numpy(np.stack(columns, 1).astype(np.float32))
        index = hz_to_bin(filled, bins=self.spec.bins, f_min=self.f_min, f_max=self.f_max)
        if self.unvoiced == "bin0":
            index[hz == 0] = 0
        return torch.from_numpy(index)

    def _world(self, clip: NDArray[np.float32]) -> Floats:
        """Track in Hz `[T]`, 0 where unvoiced."""
        with warnings.catch_warnings():
            # pyworld reads its version through pkg_resources, which warns of its removal.
            warnings.simplefilter("ignore")
            import pyworld  # here, since hosts that only train may lack it

        samples = clip.astype(np.float64)
        period = 1000.0 * HOP / SAMPLE_RATE  # ms
        options = {"f0_floor": self.f_min, "f0_ceil": self.f_max, "frame_period": period}
        if self.method == "harvest":
            track = pyworld.harvest(samples, SAMPLE_RATE, **options)[0]
        else:
            rough, times = pyworld.dio(samples, SAMPLE_RATE, **options)
            track = pyworld.stonemask(samples, rough, times, SAMPLE_RATE)
        return np.asarray(track)[: len(clip) // HOP]


def _source(checkpoint: str | None, revision: str | None) -> Checkpoint:
    if not checkpoint:
        raise ParamsError(
            "f0: `method: rmvpe` without a checkpoint; expected one: set `checkpoint` to the file "
            "rmvpe.pt of RVC (checkpoint: lj1995/VoiceConversionWebUI) or model.pt of "
            "yxlllc/RMVPE, or take `method: harvest`, which needs no weights"
        )
    return Checkpoint(checkpoint, revision)


build: BackboneFactory = F0
