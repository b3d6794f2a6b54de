"""Sizes of networks, from which bytes and operations of features follow without any weights.

A multiplication and an addition count as two operations. Counted are matrix products, convolutions
and attention, as torch's `FlopCounterMode` does; the test of this file holds the table against the
networks themselves, built from their configurations without weights. Norms, activations, spectra
and the decoding of audio are not counted.

The checkpoints are those of the catalogue. Of any other one the sizes come from its config.json, if
its folder is on this machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from features.backbone.entry import BackboneEntry
from features.errors import HeronryError
from features.extraction.sizes import CHARACTERS_A_TOKEN, SPECIAL_TOKENS
from features.weights.checkpoint import Checkpoint
from pipeline.costs.corpora import CorpusSize

SAMPLE_RATE = 16_000
STATES = 50  # a second, of most speech networks
# Of wav2vec 2.0 and those after it: kernels, strides and width of the convolutions over the audio,
# and the kernel and groups of the convolution that stands for positions.
KERNELS, STRIDES, CHANNELS = (10, 3, 3, 3, 3, 2, 2), (5, 2, 2, 2, 2, 2, 2), 512
POSITIONS, GROUPS = 128, 16


@dataclass(frozen=True)
class Network:
    """Sizes of a network.

    Attributes:
        width: Width of a state.
        depth: Number of blocks.
        block: Operations of a block at a position, its attention left out.
        front: Operations ahead of the blocks, for each position.
        rate: Positions a second of audio; None: positions are tokens of a text.
        joined: Positions that are averaged to one state.
        extra: Positions of each utterance besides, such as special tokens.
        padded_seconds: Audio is padded to a multiple of this.
        longest_seconds: What is computed at once; longer audio is cut.
        attention: Operations of attention for each pair of positions, by width.
    """

    width: int
    depth: int
    block: float
    front: float = 0.0
    rate: float | None = None
    joined: int = 1
    extra: int = 0
    padded_seconds: float | None = None
    longest_seconds: float | None = None
    attention: float = 4.0

    @property
    def hop_seconds(self) -> float | None:
        """From one state to the next."""
        return None if self.rate is None else self.joined / self.rate

    def operations(self, size: CorpusSize, blocks: int) -> float:
        """Operations of the first blocks over some utterances, taken to be of equal length.

        Attention grows with the square of the length, so that this is a little less than the truth.
        """
        if self.rate is None:
            positions, parts = size.characters / CHARACTERS_A_TOKEN, float(size.utterances)
        else:
            longest = self.longest_seconds or self.padded_seconds
            parts = max(size.utterances, size.seconds / longest if longest else 0.0)
            padded = parts * self.padded_seconds if self.padded_seconds else size.seconds
            positions = padded * self.rate
        seen = positions + self.extra * parts
        attention = self.attention * self.width * seen / max(parts, 1.0)
        return positions * self.front + seen * blocks * (self.block + attention)


def transformer(width: int, inner: int) -> float:
    """Operations of a block at a position: four maps of the attention, two of the FFN."""
    return 2.0 * (4 * width**2 + 2 * width * inner)


def speech(width: int, depth: int, inner: int, *, extra: int = 0, **front: Any) -> Network:
    """HuBERT, wav2vec 2.0, WavLM, voc2vec or data2vec."""
    kernels: Sequence[int] = front.get("kernels", KERNELS)
    strides: Sequence[int] = front.get("strides", STRIDES)
    channels: Sequence[int] = front.get("channels", (CHANNELS,) * len(kernels))
    ahead, before, hop = 0.0, 1, 1
    for stride in strides:
        hop *= stride
    outputs = float(hop)  # samples of the waveform, or frames of a convolution, for a state
    for kernel, stride, after in zip(kernels, strides, channels, strict=True):
        outputs /= stride
        ahead += 2.0 * kernel * before * after * outputs
        before = after
    positions, groups = front.get("positions", (POSITIONS, GROUPS))
    ahead += 2.0 * before * width + 2.0 * positions * width * width / groups
    block = transformer(width, inner)
    return Network(width, depth, block, ahead, SAMPLE_RATE / hop, extra=extra)


def w2v_bert(width: int, depth: int, inner: int, inputs: int, kernel: int) -> Network:
    """w2v-BERT 2.0: Conformer blocks of two FFNs, attention and a gated convolution."""
    convolution = 2.0 * (3 * width**2 + kernel * width)
    block = transformer(width, inner) + 2.0 * 2 * width * inner + convolution
    # Each pair's distance has an embedding, which is multiplied with the query.
    return Network(width, depth, block, 2.0 * inputs * width, STATES, attention=6.0)


def whisper(width: int, depth: int, inner: int, bands: int) -> Network:
    """Whisper's encoder: two convolutions of kernel 3, the second of stride 2, over 30 s."""
    front = 2.0 * 3 * (2 * bands * width + width**2)
    return Network(width, depth, transformer(width, inner), front, STATES, padded_seconds=30.0)


def text(width: int, depth: int, inner: int) -> Network:
    """BERT, RoBERTa and others with tables of embeddings alone ahead of the blocks."""
    return Network(width, depth, transformer(width, inner), extra=SPECIAL_TOKENS)


def ced(width: int, depth: int = 12) -> Network:
    """CED: 4 patches each 160 ms, of 16 bands by 16 frames, in chunks of 10.12 s."""
    block = transformer(width, 4 * width)
    front = 2.0 * 16 * 16 * width
    return Network(width, depth, block, front, 25.0, joined=4, longest_seconds=10.12)


# Five convolutions of kernel 19 for positions, and ten tokens ahead of the frames.
_EMOTION2VEC = speech(768, 12, 3072, positions=(5 * 19, 16), extra=10)
_EMOTION2VEC_LARGE = speech(1024, 12, 4096, positions=(5 * 19, 16), extra=10)
# A spectrogram of 100 frames a second through a U-Net and a GRU, counted by the test: no blocks.
_RMVPE = Network(width=0, depth=0, block=0.0, front=2 * 71_725_056.0, rate=STATES)
# Two FFNs of four times the width, attention, a gated convolution of 31 frames and the merge of the
# two (arXiv 2407.00837, ESPnet): 577 M parameters with the front end, as published.
_XEUS_BLOCK = 2.0 * (2 * 8 * 1024**2 + 4 * 1024**2 + 6 * 1024**2 + 2 * 1024**2 + 31 * (2048 + 2048))

NETWORKS = {
    "facebook/hubert-base-ls960": speech(768, 12, 3072),
    "alkiskoudounas/voc2vec-hubert-ls-pt": speech(768, 12, 3072),
    "facebook/wav2vec2-base": speech(768, 12, 3072),
    "microsoft/wavlm-base-plus": speech(768, 12, 3072),
    "facebook/hubert-large-ls960-ft": speech(1024, 24, 4096),
    "facebook/wav2vec2-large": speech(1024, 24, 4096),
    "microsoft/wavlm-large": speech(1024, 24, 4096),
    "facebook/w2v-bert-2.0": w2v_bert(1024, 24, 4096, 160, 31),
    "openai/whisper-tiny.en": whisper(384, 4, 1536, 80),
    "openai/whisper-large-v3": whisper(1280, 32, 5120, 128),
    "FacebookAI/roberta-base": text(768, 12, 3072),
    "FacebookAI/roberta-large": text(1024, 24, 4096),
    "google-bert/bert-base-uncased": text(768, 12, 3072),
    "sentence-transformers/all-MiniLM-L6-v2": text(384, 6, 1536),
    "mispeech/ced-small": ced(384),
    "emotion2vec/emotion2vec_base": _EMOTION2VEC,
    "emotion2vec/emotion2vec_plus_seed": _EMOTION2VEC,
    "emotion2vec/emotion2vec_plus_base": _EMOTION2VEC,
    "emotion2vec/emotion2vec_plus_large": _EMOTION2VEC_LARGE,
    "espnet/xeus": Network(1024, 19, _XEUS_BLOCK, speech(1024, 0, 0).front, STATES),
    "lj1995/VoiceConversionWebUI": _RMVPE,
}


def network_of(entry: BackboneEntry) -> Network | None:
    """The network of an entry; None if it has none, or its sizes are not known here."""
    name = entry.options.get("checkpoint")
    if name is None:
        return None
    if name in NETWORKS:
        return NETWORKS[name]
    return _of_folder(Checkpoint(str(name), None, entry.options.get("package")))


def of_config(config: Any) -> Network:
    """Sizes from a configuration of transformers, an AttributeError if it is of another kind."""
    if config.model_type == "whisper":
        depth, inner = config.encoder_layers, config.encoder_ffn_dim
        return whisper(config.d_model, depth, inner, config.num_mel_bins)
    sizes = (config.hidden_size, config.num_hidden_layers, config.intermediate_size)
    if config.model_type == "wav2vec2-bert":
        inputs, kernel = config.feature_projection_input_dim, config.conv_depthwise_kernel_size
        return w2v_bert(*sizes, inputs, kernel)
    if not hasattr(config, "conv_kernel"):
        return text(*sizes)
    return speech(
        *sizes,
        kernels=config.conv_kernel,
        strides=config.conv_stride,
        channels=config.conv_dim,
        positions=(config.num_conv_pos_embeddings, config.num_conv_pos_embedding_groups),
    )


def _of_folder(source: Checkpoint) -> Network | None:
    try:
        folder = source.folder()
        if folder is None:
            return None
        from transformers import AutoConfig

        return of_config(source.load(AutoConfig))
    except (HeronryError, AttributeError):
        return None  # not one of transformers, or not readable: extraction says what is wrong
