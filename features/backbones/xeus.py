"""XEUS: a speech encoder pretrained on 4057 languages (Chen et al. 2024, arXiv 2407.00837).

19 E-Branchformer blocks, 1024 wide, one state each 20 ms; 577 M parameters (2.3 GB). Weights under
CC-BY-NC-SA-4.0: no commercial use. The network is ESPnet's, an optional extra:
`pip install espnet` (202511 or later).

States come from `inference_encode(..., use_mask=False)`; ESPnet's `encode` masks frames at random,
as in pretraining, whatever the mode. Utterances run one by one: ESPnet normalises the waveforms of
a batch together, and its convolutions see padding, which changes states by as much as their size.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor, nn

from features.backbone.base import BackboneFactory, Inputs
from features.backbone.layers import LayerChoice, Layers, choose_layers, freeze
from features.backbones._audio import HOP, SAMPLE_RATE, padded, waveform
from features.backbones._hidden_states import HiddenStates, States
from features.corpus.utterance import Utterance
from features.errors import CheckpointError
from features.files.reading import file_sha256
from features.files.yaml_text import read_yaml_file
from features.stream import Stream
from features.weights.checkpoint import Checkpoint

# In the repository, or in a folder with these files alone.
WEIGHTS = ("model/xeus_checkpoint_new.pth", "xeus_checkpoint_new.pth")
CONFIGS = ("model/config.yaml", "config.yaml")
WRAPPERS = ("module", "model", "state_dict")
PARTS = ("frontend.", "normalize.", "preencoder.", "encoder.")  # modules that inference runs
CONFIG_BYTES = 1 << 22  # limit for config.yaml, which lists the tokens
MIN_SAMPLES = 400  # samples of one frame
# Kinds of parts for which ESPnet downloads weights and code of their own.
FETCHED = (
    *("avhubert", "beats", "fused", "hubert", "hubert_pretrain", "hugging_face_transformers"),
    *("s3prl", "torchaudiohubert", "wav2vec2", "whisper"),
)
MISBUILT = (AttributeError, KeyError, TypeError, ValueError, OSError, yaml.YAMLError)


class Xeus(HiddenStates):
    """Hidden states of XEUS.

    Args:
        checkpoint: Hub id (`espnet/xeus`), a folder with the weights and config.yaml, or the file
            of the weights beside config.yaml.
        revision: Commit of the hub repository.
        layer: Hidden states: a number from 1 to 19, a list of numbers, or `all` (19). ESPnet does
            not return the input of the first block, 0.
        final_norm: Whether layer 19 is taken after the encoder's final norm; published systems take
            it before.
    """

    files = WEIGHTS
    first_layer = 1

    def __init__(
        self,
        *,
        checkpoint: str,
        revision: str | None = None,
        layer: LayerChoice = -1,
        final_norm: bool = False,
    ) -> None:
        task = _espnet_task()
        self.source = Checkpoint(checkpoint, revision)
        weights = self.source.file(WEIGHTS)
        config = _config_beside(weights, self.source)
        self.config_sha256 = file_sha256(config)
        network = _built(task, config)
        _load(network, self.source.tensors(WEIGHTS, wrappers=WRAPPERS), checkpoint)
        total = len(network.encoder.encoders)
        self.layers = choose_layers(layer, total, checkpoint, first=self.first_layer)
        self.final_norm = final_norm
        network.encoder.encoders = network.encoder.encoders[: self.layers.deepest]
        freeze(network)
        self.network: nn.Module = network
        self.spec = self.layers.spec(network.encoder.output_size(), hop_seconds=HOP / SAMPLE_RATE)

    def prepare(self, utterances: Sequence[Utterance]) -> Inputs:
        """Waveforms `[B, L]` and their lengths `[B]`; the network normalises them itself."""
        samples, lengths = padded([waveform(u, min_samples=MIN_SAMPLES) for u in utterances])
        return Inputs.of(utterances, samples=samples, lengths=lengths)

    def __call__(self, inputs: Inputs) -> Stream:
        """Values `[B, T, D]`: 49 frames of the first second, 50 of each further one."""
        samples, lengths = inputs.tensors["samples"], inputs.tensors["lengths"]
        pairs = zip(samples.split(1), lengths.split(1), strict=True)  # type: ignore[no-untyped-call]
        stream = Stream.pad([self._chosen(inputs, clip, length) for clip, length in pairs])
        return stream.to(samples.device)

    def _chosen(self, inputs: Inputs, clip: Tensor, length: Tensor) -> Tensor:
        """Chosen states `[T, D]` of one waveform `[1, L]` of `length` `[1]`."""
        return self.chosen(inputs, lambda layers: self._states(clip, length, layers))[0]

    def _states(self, clip: Tensor, length: Tensor, layers: Layers) -> States:
        network: Any = self.network
        final, states, frames = network.inference_encode(
            clip[:, : int(length)], length, use_mask=False
        )
        if self.final_norm and layers.whole:
            states = [*states[:-1], final]
        return {number: state[:, : int(frames)] for number, state in enumerate(states, 1)}

    def settings(self) -> dict[str, Any]:
        """Use of the final norm, and hash of the configuration."""
        return {
            "final_norm": self.final_norm,
            "use_mask": False,
            "config_sha256": self.config_sha256,
        }


def _espnet_task() -> Any:
    """ESPnet's task of self-supervised models, from an optional package."""
    try:
        return importlib.import_module("espnet2.tasks.ssl").SSLTask
    except ImportError as error:
        raise CheckpointError(
            f"backbone kind 'xeus' needs ESPnet, which cannot be imported ({error}): "
            "`pip install -e '.[xeus]'` in a clone\n"
            "  and download model/config.yaml and model/xeus_checkpoint_new.pth of 'espnet/xeus' "
            "(CC-BY-NC-SA-4.0) into a folder 'xeus' below the one that HERONRY_CHECKPOINTS names"
        ) from error


def _config_beside(weights: Path, source: Checkpoint) -> Path:
    config = weights.with_name("config.yaml")
    if not config.is_file():
        config = source.file(CONFIGS)  # the hub's cache has only files that were asked for
    if config.suffix != ".yaml":
        raise CheckpointError(
            f"{weights} has no config.yaml beside it; expected that of the repository "
            f"{source.name!r}: ESPnet builds the network from it"
        )
    return config


def _built(task: Any, config: Path) -> Any:
    """The network that a configuration describes, without weights, in eval mode.

    ESPnet reads the YAML safely but unpickles weights, and loads them whether or not they fit; so
    it is not given their file.
    """
    try:
        _check_parts(config)
        network, _ = task.build_model_from_file(str(config), None, "cpu")
    except MISBUILT as error:
        raise CheckpointError(
            f"ESPnet cannot build a network from {config} ({type(error).__name__}: {error}); "
            "expected config.yaml of 'espnet/xeus' and ESPnet 202511 or later"
        ) from error
    # Used in pretraining only, and not part of the weights' identity.
    network.losses = nn.ModuleList()
    network.util_modules = nn.ModuleDict()
    network.encoder.layer_drop_rate = 0.0  # when tuned, a dropped block would shift the layers
    return network.float().eval()


def _check_parts(config: Path) -> None:
    """Refuse parts that ESPnet fetches from elsewhere."""
    described = read_yaml_file(config, most=CONFIG_BYTES)
    for name in ("frontend", "preencoder", "encoder"):
        if described[name] in FETCHED:
            raise CheckpointError(
                f"{config} has {name!r}: {described[name]!r}, which ESPnet fetches from elsewhere; "
                "expected config.yaml of 'espnet/xeus'"
            )


def _load(network: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Load the weights of the parts that inference runs; all must be present, and no others."""
    # By the network's own method, which renames weights of older weight-normed convolutions.
    wanted = {name: tensor for name, tensor in tensors.items() if name.startswith(PARTS)}
    try:
        names = network.load_state_dict(wanted, strict=False)
    except RuntimeError as error:
        raise CheckpointError(
            f"weights of {source!r} do not fit the network of its config.yaml ({error}); "
            "expected both from one repository"
        ) from error
    missing = [name for name in names.missing_keys if name.startswith(PARTS)]
    if missing or names.unexpected_keys:
        raise CheckpointError(
            f"weights of {source!r} do not fit the network of its config.yaml: {len(missing)} "
            f"missing {missing[:3]}, {len(names.unexpected_keys)} unexpected "
            f"{names.unexpected_keys[:3]}; expected xeus_checkpoint_new.pth and its config.yaml"
        )


build: BackboneFactory = Xeus
