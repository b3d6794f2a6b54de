"""A folder with code of its own, whose processor and network are called as those of MERaLiON-2.

This file is that code: it is copied into the folder, and imports nothing of this project. Calls are
those that the model's documentation shows: `processor(text=..., audios=...)`, `generate(**inputs)`.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import BatchFeature, Gemma2Config, Gemma2ForCausalLM, ProcessorMixin

CHUNK_SECONDS, TOKENS = 30, 3  # placeholders of each chunk of audio
PLACEHOLDER = "<SpeechHere>"
TEMPLATE = (
    "{% for message in messages %}<start_of_turn>{{ message['role'] }}\n"
    "{{ message['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


class SmallConfig(Gemma2Config):  # type: ignore[misc]
    """A Gemma-2 with a placeholder for audio."""

    model_type = "meralion2"
    speech_token_index: int = 0


class SmallProcessor(ProcessorMixin):  # type: ignore[misc]
    """Repeats the placeholder of each audio, and gives the loudness of thirds of its chunks."""

    def __init__(self, tokenizer: Any, **_: Any) -> None:
        super().__init__(tokenizer)

    def __call__(self, *, text: list[str], audios: list[Any]) -> BatchFeature:
        """Tokens and masks, and features `[B, chunks * TOKENS, 1]` with a mask."""
        counts = [TOKENS * -(-len(audio) // (16_000 * CHUNK_SECONDS)) for audio in audios]
        prompts = [
            prompt.replace(PLACEHOLDER, PLACEHOLDER * count)
            for prompt, count in zip(text, counts, strict=True)
        ]
        rows = self.tokenizer(prompts, padding=True, return_tensors="pt")
        features = torch.zeros(len(audios), max(counts), 1)
        for row, (audio, count) in enumerate(zip(audios, counts, strict=True)):
            thirds = torch.tensor_split(torch.as_tensor(audio), count)
            features[row, :count, 0] = torch.stack([30 * third.std() for third in thirds])
        mask = torch.arange(max(counts)) < torch.tensor(counts)[:, None]
        return BatchFeature(
            {**rows, "input_features": features, "feature_attention_mask": mask.long()}
        )


class SmallMeralion(Gemma2ForCausalLM):  # type: ignore[misc]
    """Reads features in place of placeholders."""

    config_class = SmallConfig

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.speech_encoder = nn.Linear(1, config.hidden_size)
        self.post_init()

    def forward(
        self,
        input_ids: Tensor,
        input_features: Tensor | None = None,
        feature_attention_mask: Tensor | None = None,
        **options: Any,
    ) -> Any:
        """As a Gemma-2; features are given with the first tokens."""
        vectors = self.get_input_embeddings()(input_ids)
        where = input_ids == self.config.speech_token_index
        if input_features is not None and where.any():
            assert feature_attention_mask is not None
            heard = self.speech_encoder(input_features)[feature_attention_mask.bool()]
            vectors = vectors.masked_scatter(where[..., None], heard)
        return super().forward(inputs_embeds=vectors, **options)


def meralion(folder: Path, tokenizer: Any, *, seed: int = 0) -> Path:
    """Write the folder; the tokenizer knows the special tokens."""
    tokenizer.chat_template = TEMPLATE
    config = SmallConfig(
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
        tie_word_embeddings=False,
        vocab_size=len(tokenizer),
        bos_token_id=None,
        eos_token_id=tokenizer.convert_tokens_to_ids("<end_of_turn>"),
        pad_token_id=tokenizer.pad_token_id,
    )
    config.speech_token_index = tokenizer.convert_tokens_to_ids(PLACEHOLDER)
    config.auto_map = {
        "AutoConfig": "modeling.SmallConfig",
        "AutoModelForSpeechSeq2Seq": "modeling.SmallMeralion",
    }
    network = SmallMeralion(config)
    generator = torch.Generator().manual_seed(seed)
    for weight in network.parameters():
        if weight.dim() > 1:
            weight.data.normal_(0, 0.4, generator=generator)
    network.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    processor = {
        "processor_class": "SmallProcessor",
        "auto_map": {"AutoProcessor": "modeling.SmallProcessor"},
    }
    (folder / "processor_config.json").write_text(json.dumps(processor), encoding="utf-8")
    shutil.copy(__file__, folder / "modeling.py")
    return folder
