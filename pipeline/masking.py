"""SpecAugment's masking in time (Park et al. 2019, arXiv 1904.08779), inside a speech network.

Spans of 0.2 s are zeroed where a network has its first frames: behind the convolutions of the
wav2vec 2.0 family (as wav2vec 2.0 does, arXiv 2006.11477, with a learned vector instead of zeros)
and in Whisper's log-mel spectra. Frequencies are left whole. Draws come from torch's generator on
the CPU, which is part of a training's state.

Legend: B batch, T time, D width, M mel bands.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from features.errors import ParamsError

SPAN_SECONDS = 0.2
FRAME_SECONDS = 0.02  # behind the convolutions of speech networks
MEL_SECONDS = 0.01
FRAMES = ("feature_projection", "modality_encoders.AUDIO.project_features")  # give [B, T, D]
MELS = ("conv1",)  # take [B, M, T]


def spans(batch: int, time: int, share: float, length: int) -> Tensor:
    """`[B, T]` bool: frames that a span covers; each frame begins one with share / length.

    So a frame is covered with a probability of 1 - (1 - share / length)^length, a little less than
    `share`.
    """
    begun = (torch.rand(batch, time) < share / length).cumsum(1)
    before = torch.nn.functional.pad(begun, (length, 0))[:, :time]
    return begun > before


def mask_time(network: nn.Module, share: float) -> None:
    """Mask from now on whenever the network is in training mode.

    Args:
        network: Of a backbone that hears.
        share: Of the frames.

    Raises:
        ParamsError: If it is not known where this network has its frames.
    """
    modules = dict(network.named_modules())
    for name in FRAMES:
        if name in modules:
            modules[name].register_forward_hook(partial(_after, network, share))
            return
    for name in MELS:
        if name in modules:
            modules[name].register_forward_pre_hook(partial(_before, network, share))
            return
    raise ParamsError(
        f"e2e.specaugment: given {share} for a {type(network).__name__}, whose frames are not "
        "known; expected 0, or a network of the wav2vec 2.0 family, Whisper or emotion2vec"
    )


def _after(network: nn.Module, share: float, _module: nn.Module, _given: Any, found: Any) -> Any:
    if not network.training:
        return found
    frames, *others = found if isinstance(found, tuple) else (found,)
    batch, time = frames.shape[:2]
    covered = spans(batch, time, share, round(SPAN_SECONDS / FRAME_SECONDS))
    masked = frames.masked_fill(covered[..., None].to(frames.device), 0)
    return (masked, *others) if isinstance(found, tuple) else masked


def _before(network: nn.Module, share: float, _module: nn.Module, given: Any) -> Any:
    if not network.training:
        return given
    (mel,) = given
    covered = spans(len(mel), mel.shape[-1], share, round(SPAN_SECONDS / MEL_SECONDS))
    return (mel.masked_fill(covered[:, None].to(mel.device), 0),)
