"""Recognises the words of utterances with a Whisper checkpoint of transformers.

Recordings over 30 s are cut into windows where they are quiet (features/transcription/windows.py),
and the words of the windows are joined. Windows of similar lengths are computed together, since a
batch takes as long as its longest text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
from torch import Tensor

from features.audio.read import SAMPLE_RATE_HZ
from features.audio.resampling import IDENTITY as RESAMPLING
from features.corpus.utterance import Utterance
from features.errors import CheckpointError, UtteranceError
from features.process.devices import entered, moved, plain_kernels
from features.process.memory import DoesNotFitError, Halver, too_large
from features.transcription.decoding import Tokens, greedy
from features.transcription.settings import Transcription
from features.transcription.windows import windows
from features.weights.checkpoint import Checkpoint
from features.weights.identity import (
    extractor_settings,
    network_settings,
    tokenizer_sha256,
    weights_sha256,
)

PART_SECONDS = 300.0  # of audio whose windows are sorted by length
BATCH = 16  # windows computed together on an accelerator
CPU_BATCH = 4


@dataclass(frozen=True)
class _Batch:
    """Windows that are computed together.

    Attributes:
        owners: Ids of their utterances.
        mel: `[B, M, 3000]`.
    """

    owners: tuple[str, ...]
    mel: Tensor

    def between(self, start: int, stop: int) -> _Batch:
        return _Batch(self.owners[start:stop], self.mel[start:stop])


def parts(utterances: Iterable[Utterance]) -> Iterator[list[Utterance]]:
    """Utterances that are sorted by length together: consecutive ones of `PART_SECONDS`."""
    part: list[Utterance] = []
    seconds = 0.0
    for utterance in utterances:
        part.append(utterance)
        seconds += utterance.seconds or 0.0
        if seconds >= PART_SECONDS:
            yield part
            part, seconds = [], 0.0
    if part:
        yield part


class Recogniser:
    """Recognises words with a Whisper checkpoint on one device.

    Args:
        settings: Checkpoint, language and precision.
        device: Device that the network runs on.

    Attributes:
        failed: Reasons by id of the utterances that `words` left out.

    Raises:
        CheckpointError: If the checkpoint is missing, or is not one of Whisper with a tokenizer.
        ParamsError: If the checkpoint does not know the language.
    """

    def __init__(self, settings: Transcription, device: str = "cpu") -> None:
        from transformers import (
            WhisperFeatureExtractor,
            WhisperForConditionalGeneration,
            WhisperTokenizer,
        )

        self.settings, self.device = settings, torch.device(device)
        self.source = Checkpoint(settings.checkpoint, settings.revision, settings.package)
        self.front_end = self.source.load(WhisperFeatureExtractor)
        self.tokenizer = self.source.load(WhisperTokenizer)
        network: Any = self.source.network(WhisperForConditionalGeneration)
        self.network, bands = network, network.config.num_mel_bins
        if self.front_end.feature_size != bands:
            raise CheckpointError(
                f"the front end of {settings.checkpoint!r} (preprocessor_config.json) has "
                f"feature_size {self.front_end.feature_size}; expected {bands}, the mel bands of "
                "its config.json: download both again"
            )
        self.tokens = Tokens.of(self.network, self.tokenizer)
        self.language = self.tokens.language(settings.language)
        self.failed: dict[str, str] = {}
        self._halver = Halver[_Batch](
            rows=lambda batch: len(batch.owners),
            shape=lambda batch: tuple(batch.mel.shape),
            between=_Batch.between,
        )
        self._moved = False

    def provenance(self) -> dict[str, Any]:
        """All that decides the words: checkpoint, hash of the weights, front end, decoding."""
        return {
            "kind": "whisper",
            **self.source.provenance(),
            "weights_sha256": weights_sha256(self.network),
            "tokenizer_sha256": tokenizer_sha256(self.tokenizer),
            "front_end": extractor_settings(self.front_end),
            "network": network_settings(self.network),
            "language": self.settings.language,
            "compute_dtype": self.settings.compute_dtype,
            "resampling": RESAMPLING,
            "version": self.settings.version,
        }

    def words(self, utterances: Iterable[Utterance]) -> Iterator[tuple[str, str]]:
        """Id and recognised words of each utterance, in order; "" where none were heard.

        An utterance that cannot be used is left out, and its reason added to `failed`.

        Args:
            utterances: Utterances with absolute audio paths; they are read in parts of
                `PART_SECONDS`, so that any number of them can follow.

        Raises:
            ManifestError: If a file is missing, or another one than in the manifest.
        """
        for part in parts(utterances):
            yield from self._of_part(part)

    def _of_part(self, part: Sequence[Utterance]) -> Iterator[tuple[str, str]]:
        heard: dict[str, list[str]] = {utterance.id: [] for utterance in part}
        for batch in self._prepared(part):
            for owner, text in zip(batch.owners, self._texts(batch), strict=True):
                if text is None:
                    self.failed.setdefault(owner, too_large(self.device))
                elif text:
                    heard[owner].append(text)
        self._halver.forget()  # how batches are cut must not depend on earlier parts
        for utterance in part:
            if utterance.id not in self.failed:
                yield utterance.id, " ".join(heard[utterance.id])

    def _prepared(self, part: Sequence[Utterance]) -> Iterator[_Batch]:
        """Batches of a part, the longest utterances first, each prepared one ahead."""
        rows = self._windows(part)
        size = CPU_BATCH if self.device.type == "cpu" else BATCH
        with ThreadPoolExecutor(1) as ahead:
            coming = ahead.submit(self._batch, rows, size)
            while (batch := coming.result()) is not None:
                coming = ahead.submit(self._batch, rows, size)
                yield batch

    def _windows(self, part: Sequence[Utterance]) -> Iterator[tuple[str, Any]]:
        for utterance in sorted(part, key=lambda u: (-(u.seconds or 0.0), u.id)):
            try:
                yield from ((utterance.id, samples) for samples in windows(utterance))
            except UtteranceError as error:
                self.failed[utterance.id] = error.reason

    def _batch(self, rows: Iterator[tuple[str, Any]], size: int) -> _Batch | None:
        some = list(islice(rows, size))
        if not some:
            return None
        owners, samples = zip(*some, strict=True)
        features = self.front_end(
            list(samples), sampling_rate=SAMPLE_RATE_HZ, padding="max_length", return_tensors="pt"
        )
        return _Batch(owners, features.input_features)

    def _texts(self, batch: _Batch) -> list[str | None]:
        """Words of each window; None: a single one that does not fit the device."""
        texts: list[str | None] = []
        for part in self._halver.parts(batch):
            try:
                texts += self._halver.attempt_twice(part, self._decoded)
            except DoesNotFitError:
                texts += [None] if len(part.owners) == 1 else self._texts(part)
        return texts

    def _decoded(self, batch: _Batch) -> list[str | None]:
        dtype = getattr(torch, self.settings.compute_dtype)
        with (
            entered(self.device),
            plain_kernels(),
            torch.autocast(self.device.type, dtype, enabled=dtype != torch.float32),
        ):
            if not self._moved:
                self.network.to(self.device)
                self._moved = True
            rows = greedy(self.network, moved(batch.mel, self.device), self.tokens, self.language)
        return [self.tokenizer.decode(row, skip_special_tokens=True).strip() for row in rows]
