"""A text encoder of transformers (BERT, RoBERTa, MiniLM, ...): hidden states of its tokens.

Special tokens are kept, padding is not. Layer -1 is the last, 0 the embeddings. Sizes: MiniLM-L6
22.7 M parameters, 384 wide (Apache-2.0); BERT-base 109 M, 768; RoBERTa-base 124 M, 768 (MIT);
RoBERTa-large 354 M, 1024. An attention mask makes padded batches exact to float rounding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import nn

from features.backbones._backbone import BackboneFactory, Inputs, Reads
from features.checkpoints import Checkpoint, weights_sha256
from features.errors import ParamsError, UtteranceError
from features.manifest import Utterance
from features.stream import Stream, StreamSpec


class TextEncoder:
    """Hidden states of a text encoder.

    Args:
        checkpoint: Hub id or folder.
        revision: Commit of the hub repository.
        package: Package that carries the same weights.
        layer: Which hidden state; -1 is the last, 0 the embeddings.
        max_tokens: Longer texts are cut, special tokens kept; None takes the network's own limit.
        trust_remote_code: Whether code from the hub may run.
    """

    def __init__(
        self,
        *,
        checkpoint: str,
        revision: str | None = None,
        package: str | None = None,
        layer: int = -1,
        max_tokens: int | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        from transformers import AutoModel, AutoTokenizer

        self.source = Checkpoint(checkpoint, revision, package, trust_remote_code)
        self.tokenizer = self.source.load(AutoTokenizer)
        self.network = self.source.network(AutoModel)
        config: Any = self.network.config
        self.layer = resolve_layer(layer, config.num_hidden_layers, checkpoint)
        cut_layers(self.network, self.layer)
        # RoBERTa counts positions from its padding index + 1; 512 usable of 514.
        limit = min(config.max_position_embeddings, 512)
        self.max_tokens = min(max_tokens or limit, limit)
        self.spec = StreamSpec(dim=config.hidden_size)
        self.reads: Reads = "text"
        self.trainable = True

    def prepare(self, utterances: Sequence[Utterance]) -> Inputs:
        """Token ids and attention mask, `[B, T]` each."""
        for utterance in utterances:
            if utterance.text is None:
                raise UtteranceError(utterance.id, "has no text")
        tokens = self.tokenizer(
            [u.text for u in utterances],
            padding=True,
            truncation=True,
            max_length=self.max_tokens,
            return_tensors="pt",
            return_token_type_ids=False,
        )
        return Inputs(tuple(u.id for u in utterances), dict(tokens))

    def __call__(self, inputs: Inputs) -> Stream:
        """Values `[B, T, D]`: one vector a token, special ones included."""
        mask = inputs.tensors["attention_mask"].bool()
        values = self.network(**inputs.tensors).last_hidden_state
        return Stream(values * mask[..., None], mask)

    def provenance(self) -> dict[str, Any]:
        """Checkpoint, revision, layer and hash of the weights."""
        return {
            "checkpoint": self.source.name,
            "revision": self.source.revision,
            "layer": self.layer,
            "max_tokens": self.max_tokens,
            "weights_sha256": weights_sha256(self.network),
        }


def resolve_layer(layer: int, layers: int, checkpoint: str) -> int:
    """The layer counted from 0 (embeddings) to `layers`, or a `ParamsError`."""
    if not -layers - 1 <= layer <= layers:
        raise ParamsError(
            f"layer {layer} of {checkpoint!r}; expected {-layers - 1} to {layers} "
            f"(it has {layers} layers; 0 is their input)"
        )
    return layer % (layers + 1)


def cut_layers(network: nn.Module, layer: int) -> None:
    """Drop the layers above `layer`, so that the last hidden state is the wanted one."""
    encoder: Any = network.encoder if hasattr(network, "encoder") else network
    encoder.layer = nn.ModuleList(list(encoder.layer)[:layer])
    for module in network.modules():
        module.requires_grad_(requires_grad=False)


build: BackboneFactory = TextEncoder
