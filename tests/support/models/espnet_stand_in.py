"""A stand-in for the part of ESPnet (202511) that XEUS needs, for machines without it.

Signatures, names of modules, the order of what is returned, and the traps are ESPnet's: waveforms
are normalised over the whole batch, states come before the final norm, `encode` masks at random,
weights would be unpickled. The arithmetic in between is not.
"""

from __future__ import annotations

import importlib.util
import sys
from argparse import Namespace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
import yaml
from torch import Tensor, nn

WINDOW, HOP = 400, 320  # samples
# Understood by ESPnet itself as well.
CONFIG: dict[str, Any] = {
    "token_list": ["a"],
    "init": None,
    "input_size": None,
    "frontend": "wav2vec_cnn",
    "frontend_conf": {
        "norm_mode": "layer_norm",
        "conv_mode": "standard",
        "bias": False,
        "normalize_audio": True,
        "shapes": [[8, 10, 5], *[[8, 3, 2]] * 4, *[[8, 2, 2]] * 2],
    },
    "specaug": None,
    "specaug_conf": {},
    "normalize": None,
    "normalize_conf": {},
    "preencoder": "linear",
    "preencoder_conf": {"output_size": 16},
    "encoder": "e_branchformer",
    "encoder_conf": {
        "output_size": 16,
        "attention_heads": 2,
        "attention_layer_type": "selfattn",
        "pos_enc_layer_type": "conv",
        "cgmlp_linear_units": 32,
        "cgmlp_conv_kernel": 3,
        "num_blocks": 3,
        "input_layer": None,
        "use_ffn": True,
        "macaron_ffn": True,
        "linear_units": 32,
    },
    "loss": [{"name": "hubert", "conf": {"num_classes": 5, "final_dim": 4}}],
    "util": [{"name": "mask", "conf": {}}],
    "model": "espnet",
    "model_conf": {},
}


class Frontend(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(1, channels, WINDOW, HOP, bias=False)

    def forward(self, x: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
        x = F.layer_norm(x, x.shape)  # over the batch, as ESPnet does
        return self.conv(x[:, None]).transpose(1, 2), (length - WINDOW) // HOP + 1


class Block(nn.Module):
    """A convolution that sees padding, as in ESPnet's blocks."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv1d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.tanh(self.conv(x.transpose(1, 2)).transpose(1, 2))


class Encoder(nn.Module):
    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.width = width
        self.encoders = nn.Sequential(*(Block(width) for _ in range(blocks)))
        self.after_norm = nn.LayerNorm(width)
        self.layer_drop_rate = 0.5

    def output_size(self) -> int:
        return self.width

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        states = []
        for block in self.encoders:
            if self.training and float(torch.rand(())) < self.layer_drop_rate:
                continue
            x = block(x)
            states.append(x)
        return self.after_norm(x), states


class Model(nn.Module):
    """Records how it is called in `calls`."""

    def __init__(self, config: Namespace) -> None:
        super().__init__()
        width = config.encoder_conf["output_size"]
        channels = config.frontend_conf["shapes"][-1][0]
        self.register_buffer("global_step", torch.tensor([0]))
        self.frontend = Frontend(channels)
        self.preencoder = nn.Linear(channels, width)
        self.encoder = Encoder(width, config.encoder_conf["num_blocks"])
        self.losses = nn.ModuleList([nn.Linear(width, 4)])
        self.util_modules = nn.ModuleDict({"mask": nn.Linear(width, 1)})
        self.calls: list[dict[str, Any]] = []

    def inference_encode(
        self,
        speech: Tensor,
        speech_lengths: Tensor,
        use_mask: bool = False,
        use_final_output: bool = True,  # noqa: ARG002  ESPnet's signature
    ) -> tuple[Tensor, list[Tensor], Tensor]:
        self.calls.append(
            {"shape": tuple(speech.shape), "lengths": speech_lengths, "use_mask": use_mask}
        )
        x, lengths = self.frontend(speech[:, : int(speech_lengths.max())], speech_lengths)
        x = self.preencoder(x)
        if self.training and use_mask:
            x = x * (torch.rand(x.shape[:2])[..., None] > 0.5)
        final, states = self.encoder(x)
        return final, states, lengths

    def encode(self, *_: Any, **__: Any) -> None:
        raise AssertionError("encode masks frames at random; expected inference_encode")


class SSLTask:
    """Records the arguments of the last call in `built`."""

    built: tuple[Any, ...] = ()

    @classmethod
    def build_model_from_file(
        cls,
        config_file: Path | str | None = None,
        model_file: Path | str | None = None,
        device: str = "cpu",
    ) -> tuple[Model, Namespace]:
        cls.built = (config_file, model_file, device)
        assert config_file is not None
        with Path(config_file).open(encoding="utf-8") as file:
            config = Namespace(**yaml.safe_load(file))
        return Model(config).to(device), config


def modules() -> dict[str, ModuleType]:
    """What `sys.modules` holds of it."""
    names = ("espnet2", "espnet2.tasks", "espnet2.tasks.ssl")
    made = {name: ModuleType(name) for name in names}
    made["espnet2.tasks.ssl"].SSLTask = SSLTask  # type: ignore[attr-defined]
    return made


def install() -> None:
    """Let `import espnet2` find the stand-in, where ESPnet itself is not installed."""
    if "espnet2" not in sys.modules and importlib.util.find_spec("espnet2") is None:
        sys.modules.update(modules())
