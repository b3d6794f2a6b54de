"""Hidden states of transformers' networks: loading, choosing, and batches in parts.

The parts of a batch have similar lengths, so that little of what is computed is padding.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from features.backbone.base import Inputs, Networked, Reads
from features.backbone.layers import Layers
from features.backbones._audio import SAMPLE_RATE
from features.errors import CheckpointError
from features.stream import StreamSpec
from features.weights.checkpoint import Checkpoint
from features.weights.identity import weights_sha256

States = Sequence[Tensor] | Mapping[int, Tensor]  # `[B, T, D]` each, by number
FRONT_ENDS = ("preprocessor_config.json", "processor_config.json")  # older and newer
SIMILAR = SAMPLE_RATE  # samples by which clips may differ that a CPU computes together


class HiddenStates(Networked):
    """Base of backbones that return hidden states of a pretrained network.

    Attributes:
        source: Checkpoint of the weights.
        layers: Chosen hidden states.
        files: Names of the weight file in its repository; empty for networks of transformers.
    """

    spec: StreamSpec
    source: Checkpoint
    layers: Layers
    reads: Reads = "audio"
    files: tuple[str, ...] = ()
    trainable = True

    def provenance(self) -> dict[str, Any]:
        """Checkpoint, revision, layers, `settings` and hash of the weights."""
        return {
            **self.source.provenance(self.files),
            **self.layers.provenance(),
            **self.settings(),
            "weights_sha256": weights_sha256(self.network),
        }

    def settings(self) -> dict[str, Any]:
        """What else decides the numbers, such as the front end."""
        return {}

    def chosen(self, inputs: Inputs, compute: Callable[[Layers], States]) -> Tensor:
        """The chosen hidden states, concatenated to `[B, T, L * D]`.

        Args:
            inputs: The batch that they are of; where entries share a pass, its states are computed
                once, those that any of them takes.
            compute: Calls the network; gives its states, these layers at least.
        """
        record = inputs.record
        layers = self.layers if record is None or record.layers is None else record.layers
        if layers == self.layers:
            return self.layers.pick(inputs.once(lambda: compute(layers)))
        # Those that nobody takes are freed.
        return self.layers.pick(inputs.once(lambda: layers.only(compute(layers))))


def speech_network(source: Checkpoint, family: Sequence[str], others: str) -> Any:
    """A speech network of transformers, without what only pretraining or recognition needs.

    SpecAugment and LayerDrop are off; an adapter after the last layer, which lengthens the hop, is
    removed.

    Args:
        source: Its checkpoint.
        family: Allowed values of `model_type` in config.json.
        others: Kinds of backbones for other networks, for the message.

    Raises:
        CheckpointError: If it is none of the family, or unusable.
    """
    from transformers import AutoConfig, AutoModel

    config = source.load(AutoConfig, trust_remote_code=False)
    if config.model_type not in family:
        expected = f"one of {', '.join(family)}" if len(family) > 1 else family[0]
        raise CheckpointError(
            f"checkpoint {source.name!r} is a {config.model_type}; expected {expected} "
            f"(kinds for others: {others})"
        )
    # Without SpecAugment the network has no mask vector, which some checkpoints lack.
    pretraining_off = {"mask_time_prob": 0.0, "mask_feature_prob": 0.0, "layerdrop": 0.0}
    network: Any = source.network(AutoModel, trust_remote_code=False, **pretraining_off)
    if getattr(network, "adapter", None) is not None:
        network.adapter = None
    return network


def feature_extractor(source: Checkpoint) -> Any:
    """The feature extractor of a speech network, whose settings say how clips are normalised.

    Raises:
        CheckpointError: If the checkpoint's folder has none.
    """
    from transformers import AutoFeatureExtractor

    folder = source.folder()
    if folder is not None and not any((folder / name).is_file() for name in FRONT_ENDS):
        raise CheckpointError(
            f"{folder} holds no {' nor '.join(FRONT_ENDS)}; expected one, since it says whether "
            f"the network was trained on normalised clips: put the file of {source.name!r} from "
            "the model hub there"
        )
    return source.load(AutoFeatureExtractor, trust_remote_code=False)


def hidden_states(network: Any, layers: Layers, *, ends: bool, **inputs: Any) -> States:
    """Hidden states of a batch by number, the chosen ones at least.

    The last one is read from `last_hidden_state`: the speech networks of transformers list it
    before their final norm.

    Args:
        network: Network of transformers.
        layers: Chosen states.
        ends: Whether the network ends after the deepest of them, since later layers were removed.
        **inputs: Keywords of the network's call.
    """
    if ends and len(layers.numbers) == 1:
        return {layers.deepest: network(**inputs).last_hidden_state}
    output = network(**inputs, output_hidden_states=True)
    states = list(output.hidden_states)
    if ends:
        states = [*states[: layers.deepest], output.last_hidden_state]
    if len(states) <= layers.deepest:
        raise CheckpointError(
            f"{type(network).__name__} lists {len(states)} hidden states; expected "
            f"{layers.total + 1}: only `layer: -1` can be taken from it"
        )
    return states


def in_parts(
    lengths: Tensor, compute: Callable[[Tensor, int], Tensor], *, differing: int = 0
) -> Tensor:
    """Values `[B, T, D]` of a batch, computed in groups of rows of similar lengths.

    Args:
        lengths: Lengths of the inputs, `[B]`.
        compute: Function from the rows `[b]` of a group and the longest length to `[b, t, D]`.
        differing: How much shorter than the longest row of its group a row may be.
    """
    every = lengths.tolist()
    groups: list[list[int]] = []
    for row in sorted(range(len(every)), key=lambda row: -every[row]):
        if groups and every[groups[-1][0]] - every[row] <= differing:
            groups[-1].append(row)
        else:
            groups.append([row])
    found: dict[int, Tensor] = {}
    for group in groups:
        values = compute(lengths.new_tensor(group), every[group[0]])
        found.update(zip(group, values, strict=True))
    ordered = [found[row] for row in range(len(every))]
    return torch.nn.utils.rnn.pad_sequence(ordered, batch_first=True)


def clips_in_parts(
    samples: Tensor,
    lengths: Tensor,
    compute: Callable[[Tensor, Tensor], Tensor],
    *,
    differing: int = SIMILAR,
) -> Tensor:
    """`in_parts` of waveforms `[B, L]` or spectra `[B, T, F]`, so that little of them is padding.

    On a CPU that is faster than the whole batch. In training each part costs an addition of
    gradients, which takes about as long as a second of audio, however large the network.
    """
    return in_parts(
        lengths,
        lambda rows, longest: compute(samples[rows, :longest], lengths[rows]),
        differing=differing,
    )
