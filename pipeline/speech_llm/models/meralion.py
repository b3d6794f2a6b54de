"""MERaLiON-2 (I2R Singapore 2025), such as MERaLiON/MERaLiON-2-10B: remote code, one audio.

MERaLiON Public Licence. transformers has no class of it: Python code of the checkpoint runs, so
that the entry must say `trust_remote_code: true`, and name a commit. It hears 300 s, in windows of
30 s. Only one audio in a conversation is documented: exemplars are given by their text.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from features.errors import CheckpointError, ParamsError, UtteranceError
from features.weights.checkpoint import Checkpoint
from features.weights.identity import CONTENT, content_revision, pinned
from pipeline.speech_llm.models._local import LocalModel
from pipeline.speech_llm.models.base import ModelSettings, Question

PLACEHOLDER = "<SpeechHere>"
END, START = "<end_of_turn>", "<start_of_turn>"
PROMPT = (
    "Instruction: {query} \nFollow the text instruction based on the following audio: "
    + PLACEHOLDER
)


class Meralion(LocalModel):
    """MERaLiON-2, by the processor and the network of its own code."""

    tokens = (END, START)
    unquantised = ("speech_encoder", "speech_audio_adapter", "ln_speech")
    hears_exemplars = False
    longest_seconds = 300.0

    def prompt(self, question: Question) -> str:
        """One message of Gemma's chat format: instructions, exemplars as text, and the question.

        Its placeholder stands for all of the audio; the checkpoint's processor repeats it.
        """
        *exemplars, last = question.turns
        lines = [question.system] if question.system else []
        lines += [f"{turn.text}\n{turn.answer}" for turn in exemplars]
        query = self._plain("\n".join([*lines, last.text])).replace(PLACEHOLDER, " ")
        message = {"role": "user", "content": PROMPT.format(query=query)}
        written: str = self.tokenizer.apply_chat_template(
            [message], tokenize=False, add_generation_prompt=True
        )
        return written

    def inputs(self, questions: Sequence[Question]) -> Mapping[str, Tensor]:
        """What the checkpoint's processor makes of prompts and audio.

        Raises:
            UtteranceError: If a question has no audio.
        """
        clips = []
        for question in questions:
            clip = self._heard(question.turns[-1])
            if clip is None:
                raise UtteranceError(question.id, "has no audio; expected some: MERaLiON needs it")
            clips.append(clip)
        found = self.processor(text=[self.prompt(question) for question in questions], audios=clips)
        return {name: value for name, value in found.items() if isinstance(value, Tensor)}

    def _class(self) -> Any:
        from transformers import AutoModelForSpeechSeq2Seq

        return AutoModelForSpeechSeq2Seq

    def _source(self) -> Checkpoint:
        source = _WithCode(
            self.settings.checkpoint,
            self.settings.revision,
            trust_remote_code=self.settings.trust_remote_code,
        )
        refuse_untrusted(self.settings, local=source.folder() is not None)
        if source.folder() is not None:
            source.look_for()  # before any of its code runs: it must be that which is meant
        return source

    def _tokenizer(self) -> Any:
        from transformers import AutoProcessor

        self.processor = self.source.load(AutoProcessor)
        if not hasattr(self.processor, "tokenizer"):
            raise CheckpointError(
                f"the processor of {self.source.name!r} has no tokenizer; expected one of "
                "MERaLiON-2: download the checkpoint again"
            )
        self.processor.tokenizer.padding_side = "left"
        return self.processor.tokenizer


def refuse_untrusted(settings: ModelSettings, *, local: bool) -> None:
    """Refuse to run code that the entry does not trust, or that a branch may exchange.

    Raises:
        ParamsError: Naming the setting.
    """
    where = f"speech_llms.{settings.name}"
    if not settings.trust_remote_code:
        raise ParamsError(
            f"{where}.trust_remote_code: given false for {settings.checkpoint!r}, which runs "
            "Python code of its own, with all rights of yours; expected true: read that code, and "
            "set it where you trust its authors"
        )
    revision = settings.revision
    commit = pinned(revision) and not str(revision).startswith(CONTENT)
    if not (local or commit):
        raise ParamsError(
            f"{where}.revision: given {revision or 'null'}, which leaves open which code of "
            f"{settings.checkpoint!r} runs; expected the commit whose code you read: write its "
            "40 digits"
        )


class _WithCode(Checkpoint):
    """A checkpoint whose content is its weights and, in a folder, its Python files."""

    def content(self, files: Sequence[str] = ()) -> str:
        folder = self.folder()
        code: list[Path] = [] if folder is None else sorted(folder.glob("*.py"))
        return content_revision([*self.parts(files), *code])


build = Meralion
