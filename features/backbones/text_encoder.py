"""A text encoder of transformers (BERT, RoBERTa, MiniLM, ...): hidden states of its tokens.

Special tokens are kept, padding is not. Layer -1 is the last, 0 the embeddings; a pooler is not
loaded. Sizes: MiniLM-L6 22.7 M parameters, 384 wide (Apache-2.0); BERT-base 109 M, 768;
RoBERTa-base 124 M, 768 (MIT); RoBERTa-large 354 M, 1024. For the families in `MASKED` an attention
mask makes padded batches exact to float rounding. In others padding may influence its neighbours
(by ConvBERT's convolutions, for example), so only texts of equal length are computed together.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from torch import Tensor, nn

from features.backbone.base import BackboneFactory, Inputs, Reads
from features.backbone.layers import LayerChoice, Layers, choose_layers, freeze, keep_first
from features.backbones._hidden_states import HiddenStates, hidden_states, in_parts
from features.corpus.utterance import Utterance
from features.errors import CheckpointError, ParamsError, UtteranceError
from features.ranges import Interval
from features.stream import Stream
from features.weights.checkpoint import Checkpoint
from features.weights.identity import network_settings, tokenizer_sha256

MAX_TOKENS = 512  # default, even for networks that take more
SANE = 1_000_000  # tokenizers without a limit name one far above this
MASKED = {
    *("albert", "bert", "camembert", "distilbert", "electra", "mpnet", "roberta", "xlm-roberta"),
}
BLOCKS = (("encoder", "layer"), ("encoder", "layers"), ("transformer", "layer"))


class TextEncoder(HiddenStates):
    """Hidden states of a text encoder.

    Args:
        checkpoint: Hub id or folder.
        revision: Commit of the hub repository.
        package: Package that carries the same weights.
        layer: Hidden states: a number, a list of numbers, or `all`; -1 is the last, 0 the
            embeddings.
        max_tokens: Number of tokens to which longer texts are cut, special tokens included; None:
            the network's own limit, 512 at most.
        trust_remote_code: Whether code from the hub may run.
    """

    reads: Reads = "text"
    cpu_batch_seconds = 60.0  # 900 characters; for one sentence, reading the weights dominates

    def __init__(
        self,
        *,
        checkpoint: str,
        revision: str | None = None,
        package: str | None = None,
        layer: LayerChoice = -1,
        max_tokens: Annotated[int, Interval(ge=3, le=1_000_000)] | None = None,
        trust_remote_code: bool = False,
    ) -> None:
        from transformers import AutoTokenizer

        self.source = Checkpoint(checkpoint, revision, package, trust_remote_code)
        # Passed on even if it is False: without a value, transformers asks at the terminal.
        self.tokenizer = self.source.load(AutoTokenizer, trust_remote_code=trust_remote_code)
        if getattr(self.tokenizer, "pad_token", None) is None:
            raise CheckpointError(
                f"the tokenizer of {checkpoint!r} has no padding token; expected an encoder's"
            )
        with self.source.reading():
            self.tokenizer.padding_side = "right"
            # Before its first use, since padding and truncation change the tokenizer's state.
            self.tokenizer_sha256 = tokenizer_sha256(self.tokenizer)
        self.network = _load(self.source)
        config: Any = self.network.config
        self.layers = choose_layers(layer, config.num_hidden_layers, checkpoint)
        self.ends = _cut(self.network, self.layers)
        freeze(self.network)
        self.masked = config.model_type in MASKED and not trust_remote_code
        with self.source.reading():
            limit = _position_limit(self.network, self.tokenizer)
        self.max_tokens = _max_tokens(max_tokens, limit, checkpoint)
        self.spec = self.layers.spec(config.hidden_size)

    def prepare(self, utterances: Sequence[Utterance]) -> Inputs:
        """Token ids and attention mask, `[B, T]` each."""
        texts = [utterance.words(self.reads) for utterance in utterances]
        for utterance, text in zip(utterances, texts, strict=True):
            if text is None:
                raise UtteranceError(utterance.id, f"has no {self.reads}")
        tokens = self.tokenizer(
            texts,
            padding=True,
            truncation=True,
            max_length=self.max_tokens,
            return_tensors="pt",
            return_token_type_ids=False,
            return_attention_mask=True,
        )
        return Inputs.of(utterances, **tokens)

    def noticed(self, utterances: Sequence[Utterance]) -> list[str | None]:
        """Notices about tokens over the limit and unknown tokens of each text."""
        texts = [utterance.words(self.reads) or "" for utterance in utterances]
        # Not `verbose`, since transformers would warn about long texts.
        rows: list[list[int]] = self.tokenizer(
            texts, return_attention_mask=False, return_token_type_ids=False, verbose=False
        )["input_ids"]
        return [self._notice(row) for row in rows]

    def _notice(self, tokens: list[int]) -> str | None:
        words, found = "recognised words" if self.reads == "asr" else "text", []
        if len(tokens) > self.max_tokens:
            found.append(
                f"the {len(tokens)} tokens of its {words} are cut to the {self.max_tokens} that "
                "the encoder takes"
            )
        unknown = tokens[: self.max_tokens].count(self.tokenizer.unk_token_id)
        if unknown:
            found.append(f"{unknown} tokens of its {words} are unknown to the tokenizer")
        return "; ".join(found) or None

    def __call__(self, inputs: Inputs) -> Stream:
        """Values `[B, T, L * D]`: one vector for each token, special ones included."""
        mask = inputs.tensors["attention_mask"].bool()
        if self.masked:
            values = self._chosen(inputs, inputs.tensors)
        else:
            values = in_parts(mask.sum(1), lambda rows, t: self._group(inputs, rows, t))
        return Stream(values * mask[..., None], mask)

    def settings(self) -> dict[str, Any]:
        """Limit of tokens, tokenizer and network."""
        return {
            "max_tokens": self.max_tokens,
            "tokenizer_sha256": self.tokenizer_sha256,
            "network": network_settings(self.network),
        }

    def _group(self, inputs: Inputs, rows: Tensor, length: int) -> Tensor:
        tensors = {name: tensor[rows, :length] for name, tensor in inputs.tensors.items()}
        return self._chosen(inputs, tensors)

    def _chosen(self, inputs: Inputs, tensors: Mapping[str, Tensor]) -> Tensor:
        return self.chosen(
            inputs,
            lambda layers: hidden_states(self.network, layers, ends=self.ends, **tensors),
        )


def _load(source: Checkpoint) -> nn.Module:
    """The network of a checkpoint without its pooler, for which many checkpoints lack weights."""
    from transformers import AutoConfig, AutoModel
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    config = source.load(AutoConfig, trust_remote_code=source.trust_remote_code)
    if config.is_encoder_decoder or getattr(config, "num_hidden_layers", None) is None:
        raise CheckpointError(
            f"checkpoint {source.name!r} is a {config.model_type}; expected a text encoder alone, "
            "such as FacebookAI/roberta-base"
        )
    kind = MODEL_MAPPING.get(type(config), None)  # None if the code is from the hub
    keywords = inspect.signature(kind).parameters if inspect.isclass(kind) else {}
    pooler = {"add_pooling_layer": False} if "add_pooling_layer" in keywords else {}
    return source.network(AutoModel, trust_remote_code=source.trust_remote_code, **pooler)


def _cut(network: nn.Module, layers: Layers) -> bool:
    """Remove the blocks above the deepest layer; returns whether the network now ends after it.

    If blocks are shared (ALBERT), or a module with weights follows them (a final norm, which only
    the last state has passed), the network stays whole and its states are picked instead.
    """
    if layers.whole:
        return True
    for outer, inner in BLOCKS:
        holder: Any = getattr(network, outer, None)
        blocks = getattr(holder, inner, None)
        if not isinstance(blocks, nn.ModuleList) or len(blocks) != layers.total:
            continue
        names = [name for name, _ in network.named_children()]
        after = [getattr(network, name) for name in names[names.index(outer) + 1 :]]
        beside = [module for module in holder.children() if module is not blocks]
        if any(list(module.parameters()) for module in after + beside):
            return False
        setattr(holder, inner, keep_first(blocks, layers.deepest))
        return True
    return False


def _position_limit(network: Any, tokenizer: Any) -> int:
    """Number of tokens for which the network has positions."""
    for name, module in network.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, nn.Embedding):
            # RoBERTa counts positions from its padding index + 1: 512 usable ones of 514.
            unused = 0 if module.padding_idx is None else module.padding_idx + 1
            return module.num_embeddings - unused
    limit = getattr(network.config, "max_position_embeddings", None) or tokenizer.model_max_length
    return int(limit) if 0 < limit < SANE else MAX_TOKENS


def _max_tokens(wanted: int | None, limit: int, checkpoint: str) -> int:
    if wanted is None:
        return min(limit, MAX_TOKENS)
    if not 3 <= wanted <= limit:
        raise ParamsError(
            f"max_tokens {wanted} of {checkpoint!r}; expected 3 (two of them are special tokens) "
            f"to {limit}, its limit"
        )
    return wanted


build: BackboneFactory = TextEncoder
