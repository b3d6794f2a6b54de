"""Speech language models of the real classes with a few thousand random weights, in folders.

Tokenizers know the bytes and the special tokens of the published ones, and have no merges.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from features.audio import torchaudio_cpu  # noqa: F401  transformers imports torchaudio

QWEN = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>"),
    *("<|audio_eos|>", "<|IMAGE|>", "<|VIDEO|>", "<|vision_bos|>", "<|vision_eos|>"),
)
PHI = (
    *("<|endoftext|>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
    *("<|audio|>", "<|image|>"),
)
# ChatML as Qwen2.5-Omni writes it: audios are not numbered.
QWEN_OMNI_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}"
    "{% else %}{% for part in message['content'] %}"
    "{% if part['type'] == 'audio' %}<|audio_bos|><|AUDIO|><|audio_eos|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SIZES = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 2, "num_key_value_heads": 1}
CONFORMER = {
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_blocks": 1,
    "num_attention_heads": 2,
    "ext_pw_out_channel": 16,
    "depthwise_separable_out_channel": 16,
    "nemo_conv_channels": 8,
    "bias_max_distance": 20,
}
ENCODER = {"d_model": 16, "encoder_layers": 1, "encoder_attention_heads": 2, "encoder_ffn_dim": 32}


def byte_tokenizer(kind: str, special: Sequence[str], end: str) -> Any:
    """A tokenizer of transformers' class `kind` without merges: a token for each byte."""
    import transformers
    from tokenizers.pre_tokenizers import ByteLevel

    vocabulary = {letter: number for number, letter in enumerate(sorted(ByteLevel.alphabet()))}
    vocabulary |= {token: len(vocabulary) + n for n, token in enumerate(special)}
    tokenizer = getattr(transformers, kind)(
        vocab=vocabulary, merges=[], unk_token=end, eos_token=end, pad_token=end
    )
    tokenizer.add_special_tokens({"extra_special_tokens": list(special)})
    return tokenizer


def _save(folder: Path, network: Any, tokenizer: Any, front_end: Any, *, seed: int = 0) -> Path:
    """Write a folder as the hub has it; weights are spread so that answers depend on the audio."""
    generator = torch.Generator().manual_seed(seed)
    for weight in network.parameters():
        if weight.dim() > 1:
            weight.data.normal_(0, 0.2, generator=generator)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    front_end.save_pretrained(folder)
    return folder


def qwen2_audio(folder: Path, **options: Any) -> Path:
    """A Qwen2-Audio with 128 mel bands."""
    from transformers import (
        Qwen2AudioConfig,
        Qwen2AudioForConditionalGeneration,
        WhisperFeatureExtractor,
    )

    tokenizer = byte_tokenizer("Qwen2Tokenizer", QWEN, "<|endoftext|>")
    config = Qwen2AudioConfig(
        audio_config={"model_type": "qwen2_audio_encoder", **ENCODER},
        text_config={"model_type": "qwen2", **SIZES, **HEADS, "vocab_size": len(tokenizer)},
        audio_token_index=tokenizer.convert_tokens_to_ids("<|AUDIO|>"),
    )
    network = Qwen2AudioForConditionalGeneration(config)
    return _save(folder, network, tokenizer, WhisperFeatureExtractor(feature_size=128), **options)


def qwen2_5_omni(folder: Path, **options: Any) -> Path:
    """The thinker of a Qwen2.5-Omni, which hears 300 s."""
    from transformers import (
        Qwen2_5OmniThinkerConfig,
        Qwen2_5OmniThinkerForConditionalGeneration,
        WhisperFeatureExtractor,
    )

    tokenizer = byte_tokenizer("Qwen2Tokenizer", QWEN, "<|endoftext|>")
    of = {token: tokenizer.convert_tokens_to_ids(token) for token in QWEN}
    config = Qwen2_5OmniThinkerConfig(
        audio_config={**ENCODER, "output_dim": 16},
        vision_config={"depth": 1, "hidden_size": 16, "num_heads": 2, "out_hidden_size": 16},
        text_config={
            **SIZES,
            **HEADS,
            "vocab_size": len(tokenizer),
            "rope_parameters": {"rope_type": "default", "mrope_section": [1, 1, 2]},
        },
        audio_token_index=of["<|AUDIO|>"],
        audio_start_token_id=of["<|audio_bos|>"],
        audio_end_token_id=of["<|audio_eos|>"],
        image_token_index=of["<|IMAGE|>"],
        video_token_index=of["<|VIDEO|>"],
        vision_start_token_id=of["<|vision_bos|>"],
        vision_end_token_id=of["<|vision_eos|>"],
    )
    network = Qwen2_5OmniThinkerForConditionalGeneration(config)
    front_end = WhisperFeatureExtractor(feature_size=128, chunk_length=300)
    return _save(folder, network, tokenizer, front_end, **options)


def phi4_multimodal(folder: Path, **options: Any) -> Path:
    """A Phi-4-multimodal, and a speech adapter whose product of matrices is not zero."""
    from peft import LoraConfig
    from transformers import (
        Phi4MultimodalConfig,
        Phi4MultimodalFeatureExtractor,
        Phi4MultimodalForCausalLM,
    )

    tokenizer = byte_tokenizer("GPT2Tokenizer", PHI, "<|endoftext|>")
    of = {token: tokenizer.convert_tokens_to_ids(token) for token in PHI}
    config = Phi4MultimodalConfig(
        **SIZES,
        **HEADS,
        vocab_size=len(tokenizer),
        audio_config={**CONFORMER, "audio_token_id": of["<|audio|>"]},
        vision_config={
            **SIZES,
            "num_attention_heads": 2,
            "image_size": 28,
            "crop_size": 28,
            "image_token_id": of["<|image|>"],
        },
        bos_token_id=of["<|endoftext|>"],
        eos_token_id=[of["<|endoftext|>"], of["<|end|>"]],
        pad_token_id=of["<|endoftext|>"],
    )
    network = Phi4MultimodalForCausalLM(config)
    _save(folder, network, tokenizer, Phi4MultimodalFeatureExtractor(), **options)
    adapter: dict[str, torch.Tensor] = {}
    generator = torch.Generator().manual_seed(1)
    for name, module in network.named_modules():
        if name.endswith("qkv_proj"):
            shapes = {"A": (2, module.in_features), "B": (module.out_features, 2)}
            for letter, shape in shapes.items():
                key = f"base_model.model.{name}.lora_{letter}.weight"
                adapter[key] = torch.randn(shape, generator=generator) / 2
    LoraConfig(r=2, target_modules=["qkv_proj"]).save_pretrained(str(folder / "speech-lora"))
    save_file(adapter, folder / "speech-lora" / "adapter_model.safetensors")
    return folder


def meralion(folder: Path, **options: Any) -> Path:
    """A network of remote code with the interface of MERaLiON-2."""
    from tests.support.models import small_meralion

    special = ("<pad>", "<end_of_turn>", "<start_of_turn>", small_meralion.PLACEHOLDER)
    tokenizer = byte_tokenizer("GPT2Tokenizer", special, "<pad>")
    return small_meralion.meralion(folder, tokenizer, **options)


SMALL: dict[str, Callable[..., Path]] = {
    "qwen2_audio": qwen2_audio,
    "qwen2_5_omni": qwen2_5_omni,
    "phi4_multimodal": phi4_multimodal,
    "meralion": meralion,
}
