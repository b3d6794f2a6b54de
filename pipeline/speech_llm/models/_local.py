"""A speech language model that runs in this process: loading, batches, greedy decoding, provenance.

Answers are decoded greedily: the checkpoint's own settings of generation are dropped, since those
of published chat models sample and penalise repetition, which would punish the labels that the
prompt lists. Of them only the tokens that end an answer are kept. Prompts are padded on the left.
"""

from __future__ import annotations

import abc
import functools
import hashlib
import importlib.metadata
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from features.audio.read import SAMPLE_RATE_HZ, Samples
from features.errors import CheckpointError, MachineError
from features.process.devices import entered, moved, plain_kernels
from features.process.memory import DoesNotFitError, Halver, out_of_memory, too_large
from features.weights.checkpoint import Checkpoint
from features.weights.identity import CONTENT, left_open, pinned, report_left_open, tokenizer_sha256
from features.weights.tensors import first_line
from pipeline.speech_llm.models._quantised import PACKAGES, quantised
from pipeline.speech_llm.models.base import EXAMPLE, ModelSettings, Question, Turn

MIN_SAMPLES = SAMPLE_RATE_HZ // 10  # shorter audio is followed by silence: it has few frames
LIBRARIES = ("transformers", "torch")


class LocalModel(abc.ABC):
    """Answers questions with a checkpoint of transformers on one device.

    Attributes:
        tokens: Tokens that prompts are written with; the first one ends an answer.
        unquantised: Ends of the names of modules that keep their precision: audio and vision.

    Args:
        settings: Checkpoint, precision and length of answers.
        device: Device that the network runs on.

    Raises:
        CheckpointError: If files are missing, damaged or others than named.
        ParamsError: If the quantisation lacks its package or a GPU.
    """

    tokens: ClassVar[tuple[str, ...]]
    unquantised: ClassVar[tuple[str, ...]]
    hears_exemplars = True
    longest_seconds: float | None = None

    def __init__(self, settings: ModelSettings, device: str = "cpu") -> None:
        self.settings, self.device = settings, torch.device(device)
        automatic = "float32" if self.device.type == "cpu" else "bfloat16"
        precision = automatic if settings.dtype == "auto" else settings.dtype
        self.dtype: torch.dtype = getattr(torch, precision)
        self.failed: dict[str, str] = {}
        self.source = self._source()
        self._quantisation = quantised(settings, self.device, self.dtype, self.unquantised)
        self.tokenizer = self._tokenizer()
        self._check_tokens()
        self._check_weights()
        self.network: Any = self._network()
        self.network.generation_config = self._generation()
        # What did not fit stays known: each batch would else be tried twice in vain.
        self._halver = Halver[tuple[Question, ...]](rows=len, shape=_shape, between=_between)

    def answers(self, questions: Sequence[Question]) -> list[str | None]:
        """Raw answers in order (`SpeechModel.answers`)."""
        found: list[str | None] = []
        for part in self._halver.parts(tuple(questions)) if questions else ():
            try:
                found += self._halver.attempt_twice(part, self._answered)
            except DoesNotFitError:
                if len(part) > 1:
                    found += self.answers(part)
                    continue
                question = part[0]
                size = f"{question.seconds:.0f} s in {len(question.turns)} turns"
                self.failed[question.id] = too_large(
                    self.device, size, "ask with fewer exemplars, quantise the weights"
                )
                found.append(None)
        return found

    @functools.cached_property
    def provenance(self) -> dict[str, Any]:
        """Checkpoint, SHA-256 of its files, precision, decoding, and versions of libraries."""
        source = self.source.provenance()
        known = str(source["revision"]).startswith(CONTENT)
        return {
            "kind": self.settings.kind,
            **source,
            "weights": source["revision"] if known else self.source.content(),
            "tokenizer_sha256": tokenizer_sha256(self.tokenizer),
            "dtype": str(self.dtype).removeprefix("torch."),
            "quantise": self.settings.quantise,
            "layout_sha256": hashlib.sha256(self.prompt(EXAMPLE).encode()).hexdigest(),
            "decoding": "greedy",
            "max_new_tokens": self.settings.max_new_tokens,
            "trust_remote_code": self.settings.trust_remote_code,
            **{name: importlib.metadata.version(name) for name in self._libraries},
        }

    @property
    def _libraries(self) -> tuple[str, ...]:
        package = PACKAGES.get(self.settings.quantise)
        return LIBRARIES if package is None else (*LIBRARIES, package)

    @abc.abstractmethod
    def prompt(self, question: Question) -> str:
        """The whole prompt of a question, with every placeholder of its audio."""

    @abc.abstractmethod
    def inputs(self, questions: Sequence[Question]) -> Mapping[str, Tensor]:
        """Keywords of the network for a batch, on the CPU; `input_ids` is `[B, T]`."""

    @abc.abstractmethod
    def _class(self) -> Any:
        """The class of transformers, or `Auto` class, that loads the network."""

    def _source(self) -> Checkpoint:
        settings = self.settings
        return Checkpoint(
            settings.checkpoint,
            settings.revision,
            trust_remote_code=settings.trust_remote_code,
        )

    def _tokenizer(self) -> Any:
        from transformers import AutoTokenizer

        return self.source.load(AutoTokenizer)

    def _network(self) -> Any:
        quantisation = self._quantisation
        try:
            return self.source.network(
                self._class(),
                dtype=self.dtype,
                use_safetensors=True,
                device_map={"": str(self.device)},
                **({} if quantisation is None else {"quantization_config": quantisation}),
            )
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error):
                raise
            raise MachineError(
                f"the weights of {self.settings.checkpoint!r} do not fit the memory of "
                f"{self.device} ({first_line(error)}): end other programs, set `speech_llms."
                f"{self.settings.name}.quantise`, or use a larger device"
            ) from error

    def _padded(self, prompts: list[str]) -> dict[str, Tensor]:
        """Tokens and mask `[B, T]` of prompts, padded on the left."""
        rows = self.tokenizer(
            prompts,
            padding=True,
            padding_side="left",
            add_special_tokens=False,
            return_tensors="pt",
        )
        return {name: rows[name] for name in ("input_ids", "attention_mask")}

    def _heard(self, turn: Turn) -> Samples | None:
        """A turn's audio without what is beyond `longest_seconds`, at least `MIN_SAMPLES` long."""
        if turn.audio is None:
            return None
        longest = self.longest_seconds
        end = None if longest is None else round(longest * SAMPLE_RATE_HZ)
        samples = turn.audio[:end]
        return np.pad(samples, (0, max(0, MIN_SAMPLES - len(samples))))

    def _plain(self, text: str) -> str:
        """Text without control tokens, which a transcript could otherwise smuggle in."""
        for token in self._control_tokens:
            text = text.replace(token, " ")
        return text

    @functools.cached_property
    def _control_tokens(self) -> list[str]:
        # Others that were added are text: Gemma's tokenizer lists line ends and runs of spaces.
        added = {
            token.content
            for token in self.tokenizer.added_tokens_decoder.values()
            if token.special or token.content.startswith("<|")
        }
        return sorted({*added, *self.tokens}, key=len, reverse=True)

    def _check_weights(self) -> None:
        """Refuse weights that need unpickling, and report those that the entry leaves open."""
        path = self.source.weights_here()
        if path is not None and ".safetensors" not in path.suffixes:
            raise CheckpointError(
                f"checkpoint {self.settings.checkpoint!r} has its weights in {path.name}; expected "
                "safetensors: load it once with transformers, and save it by `save_pretrained`"
            )
        if not pinned(self.settings.revision):
            where = f"speech_llms.{self.settings.name}.revision"
            report_left_open(left_open(where, self.settings.revision, self.source.content()))

    def _check_tokens(self) -> None:
        lacking = sorted(set(self.tokens) - set(self.tokenizer.get_vocab()))
        if lacking:
            raise CheckpointError(
                f"the tokenizer of {self.settings.checkpoint!r} lacks {', '.join(lacking)}; "
                f"expected one of kind {self.settings.kind}: set `speech_llms."
                f"{self.settings.name}.kind` to the checkpoint's, or download it again"
            )

    def _generation(self) -> Any:
        from transformers import GenerationConfig

        own = self.network.generation_config.eos_token_id
        ends = {self.tokenizer.convert_tokens_to_ids(self.tokens[0])}
        ends |= set(own if isinstance(own, list) else [] if own is None else [own])
        pad = self.tokenizer.pad_token_id
        return GenerationConfig(
            do_sample=False,
            max_new_tokens=self.settings.max_new_tokens,
            eos_token_id=sorted(ends),
            pad_token_id=min(ends) if pad is None else pad,
        )

    def _answered(self, questions: Sequence[Question]) -> list[str]:
        inputs = self.inputs(questions)
        with torch.inference_mode(), entered(self.device), plain_kernels():
            given = {
                name: moved(value, self.device, self.dtype if value.is_floating_point() else None)
                for name, value in inputs.items()
            }
            ids = self.network.generate(**given)
        new = ids[:, inputs["input_ids"].shape[1] :].tolist()
        texts: list[str] = self.tokenizer.batch_decode(
            new, skip_special_tokens=True, clean_up_tokenization_spaces=False
        )
        return texts


def _shape(questions: Sequence[Question]) -> tuple[int, ...]:
    """Number of questions, and milliseconds of audio of the longest: what memory grows with."""
    return len(questions), max(round(1000 * question.seconds) for question in questions)


def _between(questions: tuple[Question, ...], start: int, stop: int) -> tuple[Question, ...]:
    return questions[start:stop]
