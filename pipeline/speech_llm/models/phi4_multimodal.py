"""Phi-4-multimodal (Microsoft 2025, arXiv 2503.01743): microsoft/Phi-4-multimodal-instruct.

MIT licence. transformers' own classes, so that `revision` must be one of its layout; the main
branch of the hub holds that of remote code. The language model hears only with the LoRA adapter of
the folder `speech-lora` beside the weights. It hears 30 minutes, in blocks of 40 s.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from features.audio.read import SAMPLE_RATE_HZ
from features.errors import CheckpointError
from features.weights.checkpoint import Checkpoint, quiet
from features.weights.checks import ADAPTER as ADAPTER_CONFIG
from features.weights.checks import check_config, read_object
from features.weights.identity import extractor_settings
from pipeline.speech_llm.models._local import LocalModel
from pipeline.speech_llm.models.base import Question

ADAPTER = "speech-lora"
# transformers takes each weight with this in its name for one of the adapter, and reports those
# that the adapter's file lacks as missing: not `speech`, which is in `up_proj_for_speech`.
ADAPTER_NAME = "heard"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
END, SYSTEM, USER, ASSISTANT = "<|end|>", "<|system|>", "<|user|>", "<|assistant|>"
WINDOW, HOP = 400, 160  # samples of a frame of the spectrum, and between the beginnings of two
REDUCTION = 8  # frames of a vector


def audio_tokens(samples: int) -> int:
    """Vectors of a clip: frames of 25 ms within it, each 10 ms, eight to a vector.

    >>> [audio_tokens(n) for n in (1600, 16_000, 480_000)]
    [1, 13, 375]
    """
    return -(-((samples - WINDOW) // HOP + 1) // REDUCTION)


class Phi4Multimodal(LocalModel):
    """Phi-4-multimodal with its speech adapter."""

    tokens = (END, SYSTEM, USER, ASSISTANT)
    unquantised = ("embed_tokens_extend",)
    longest_seconds = 1800.0

    def prompt(self, question: Question) -> str:
        """Instructions, and each turn as its audio, its text and its answer, without line ends."""
        config = self.network.config.audio_config
        placeholder = self.tokenizer.convert_ids_to_tokens(config.audio_token_id)
        written = f"{SYSTEM}{self._plain(question.system)}{END}" if question.system else ""
        for turn in question.turns:
            clip = self._heard(turn)
            heard = "" if clip is None else placeholder * audio_tokens(len(clip))
            written += f"{USER}{heard}{self._plain(turn.text)}{END}{ASSISTANT}"
            if turn.answer is not None:
                written += f"{self._plain(turn.answer)}{END}"
        return written

    def inputs(self, questions: Sequence[Question]) -> Mapping[str, Tensor]:
        """Tokens and masks `[B, T]`; spectra `[A, F, M]`, masks and sizes `[A]` of all A clips."""
        rows = self._padded([self.prompt(question) for question in questions])
        heard = [self._heard(turn) for question in questions for turn in question.turns]
        # One by one: in a batch the last frames would also see the silence behind a clip.
        found = [
            self.front_end(clip, sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt")
            for clip in heard
            if clip is not None
        ]
        if not found:
            return rows
        spectra = [one.audio_input_features[0] for one in found]
        masks = [torch.ones(len(spectrum), dtype=torch.bool) for spectrum in spectra]
        return {
            **rows,
            "audio_input_features": pad_sequence(spectra, batch_first=True),
            "audio_attention_mask": pad_sequence(masks, batch_first=True),
            "audio_embed_sizes": torch.cat([one.audio_embed_sizes for one in found]),
        }

    @property
    def provenance(self) -> dict[str, Any]:
        """As of any model, and the settings of the spectra and the name of the adapter."""
        return {
            **super().provenance,
            "front_end": extractor_settings(self.front_end),
            "adapter": ADAPTER,
        }

    def _class(self) -> Any:
        from transformers import Phi4MultimodalForCausalLM

        return Phi4MultimodalForCausalLM

    def _source(self) -> Checkpoint:
        settings = self.settings
        return _WithAdapter(
            settings.checkpoint,
            settings.revision,
            trust_remote_code=settings.trust_remote_code,
        )

    def _tokenizer(self) -> Any:
        from transformers import Phi4MultimodalFeatureExtractor

        self.front_end = self.source.load(Phi4MultimodalFeatureExtractor)
        return super()._tokenizer()

    def _network(self) -> Any:
        """The network with the adapter, which is active once it is loaded."""
        folder, source = self.source.folder(), self.source
        assert isinstance(source, _WithAdapter)
        source.check_adapter()
        network = super()._network()
        with source.reading(), quiet():
            info = network.load_adapter(
                source.name if folder is None else str(folder),
                adapter_name=ADAPTER_NAME,
                adapter_kwargs={"subfolder": ADAPTER, "revision": source.commit},
            )
        if info.missing_keys:
            raise CheckpointError(
                f"{ADAPTER} of checkpoint {source.name!r} lacks {len(info.missing_keys)} weights, "
                f"such as {sorted(info.missing_keys)[:3]}; expected one of this network: download "
                "both again"
            )
        part = network.model.embed_tokens_extend.audio_embed
        part.encoder = _EachAlone(part.encoder)
        return network


class _WithAdapter(Checkpoint):
    """A checkpoint whose content is its weights and those of its speech adapter."""

    def parts(self, files: Sequence[str] = ()) -> list[Path]:
        return [*super().parts(files), self._of_adapter(ADAPTER_WEIGHTS)]

    def check_adapter(self) -> None:
        """Refuse an adapter that is missing, or leads to other code.

        Raises:
            CheckpointError: Naming the file.
        """
        path = self._of_adapter(ADAPTER_CONFIG)
        check_config(path, read_object(path), trusted=self.trust_remote_code)
        self._of_adapter(ADAPTER_WEIGHTS)

    def _of_adapter(self, name: str) -> Path:
        folder, file = self.folder(), f"{ADAPTER}/{name}"
        if folder is None:
            return self._from_hub([file])
        if not (folder / file).is_file():
            raise CheckpointError(self.advice(f"{folder} lacks {file}", [file]))
        return folder / file


class _EachAlone(nn.Module):
    """Encodes each clip alone: convolutions would carry padding into its last vectors.

    The answer to a question then does not depend on those beside it in a batch.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, spectra: Tensor, mask: Tensor) -> Tensor:
        """Vectors `[A, V, D]` of spectra `[A, F, M]` with a mask `[A, F]` of their frames."""
        lengths = mask.sum(dim=1).tolist()
        clips = [spectrum[None, :n] for spectrum, n in zip(spectra, lengths, strict=True)]
        return pad_sequence([self.encoder(clip, None)[0] for clip in clips], batch_first=True)


build = Phi4Multimodal
