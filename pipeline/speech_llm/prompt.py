"""Prompts: files with instructions and a message, into which classes and words are put.

A file has two parts, each behind a line of its own:

    [system]
    You label the emotion in speech. The labels are: <classes>.
    [user]
    Its words are: <transcription>. Which label fits?

`[system]` may be left out. A part is taken as it stands, spaces at the ends of lines included. The
classes of the corpus take the place of `<classes>`, as `angry, happy, sad`, and of a set in the
notation of Python, such as `{'happy', 'sad'}`: so a published prompt stays as it was published, and
is sent byte for byte where its set holds the classes of the corpus, in whatever order. The words of
an utterance take the place of `<transcription>`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from features.arguments import one_of
from features.errors import ParamsError
from pipeline.runs.answers import PromptHead

CLASSES, WORDS = "<classes>", "<transcription>"
NO_WORDS = "(no transcription)"
"""What is sent in place of the words of an utterance without any."""
_PARTS = ("[system]", "[user]")
_SET = re.compile(r"\{'[^'{}]*'(?:, '[^'{}]*')*\}")
_PLACE = re.compile(r"<[A-Za-z_]+>")


@dataclass(frozen=True)
class Prompt:
    """A prompt for the classes of one corpus.

    Attributes:
        path: Its file.
        sha256: SHA-256 of the file.
        system: Instructions; "" for none.
        user: Message, with `<transcription>` in it or without.
        classes_replaced: Whether the file's own set of classes gave way to that of the corpus.
    """

    path: str
    sha256: str
    system: str
    user: str
    classes_replaced: bool

    @classmethod
    def read(cls, path: str, classes: Sequence[str]) -> Self:
        """Read a file, and put the classes of a corpus into it.

        Raises:
            ParamsError: If it is missing, not UTF-8, has other parts than named above, names a
                place that there is nothing for, or no classes.
        """
        try:
            content = Path(path).read_bytes()
            text = content.decode()
        except (OSError, UnicodeDecodeError) as error:
            raise ParamsError(
                f"the prompt {path} cannot be read ({error}); expected a text file such as "
                "stages/speech_llm/prompts/heron.txt (docs/speech-llm.md)"
            ) from error
        parts = _parts(path, text)
        sets = {found for part in parts for found in _SET.findall(part)}
        same = all(_named(found) == set(classes) for found in sets)
        if not sets and not any(CLASSES in part for part in parts):
            raise ParamsError(
                f"the prompt {path} names no classes; expected {CLASSES}, or a set such as "
                "{'happy', 'sad'}, which the classes of the corpus take the place of"
            )
        system, user = (_with_classes(part, classes, keep=same) for part in parts)
        return cls(path, hashlib.sha256(content).hexdigest(), system, user, not same)

    @property
    def needs_words(self) -> bool:
        """Whether the message has a place for the words of an utterance."""
        return WORDS in self.user

    def message(self, words: str | None) -> str:
        """The message about an utterance, whose words may be unknown."""
        return self.user.replace(WORDS, words or NO_WORDS)

    def head(self) -> PromptHead:
        """What run.json says of it."""
        return PromptHead(**vars(self))


def _parts(path: str, text: str) -> tuple[str, str]:
    """Instructions and message, as they stand but for the end of their last line."""
    found: dict[str, list[str]] = {}
    lines: list[str] | None = None
    for line in text.split("\n"):
        if line in _PARTS:
            if line in found:
                raise ParamsError(f"the prompt {path}: {line} occurs twice; expected it once")
            lines = found.setdefault(line, [])
        elif lines is not None:
            lines.append(line)
        elif line.strip():
            raise ParamsError(
                f"the prompt {path} begins with {line[:40]!r}; expected a line [system] or [user]"
            )
    if text.endswith("\n") and lines:
        lines.pop()  # what follows the last end of a line
    system, user = ("\n".join(found.get(name, ())) for name in _PARTS)
    if not user.strip():
        raise ParamsError(
            f"the prompt {path} has no message; expected a line [user] and the message behind it"
        )
    _check_places(path, system, user)
    return system, user


def _check_places(path: str, system: str, user: str) -> None:
    known = (CLASSES, WORDS)
    for place in _PLACE.findall(system + user):
        if place not in known:
            raise ParamsError(
                f"the prompt {path}: given the place {place}; expected {one_of(place, known)}"
            )
    if WORDS in system:
        raise ParamsError(
            f"the prompt {path}: {WORDS} stands in the part [system], which is the same for all "
            "utterances; expected it behind [user]"
        )


def _with_classes(text: str, classes: Sequence[str], *, keep: bool) -> str:
    names = "{" + ", ".join(f"'{name}'" for name in classes) + "}"
    # By functions: a class may hold what a replacement reads as a reference.
    text = text if keep else _SET.sub(lambda _: names, text)
    return text.replace(CLASSES, ", ".join(classes))


def _named(found: str) -> set[str]:
    """Names of a set in the notation of Python.

    >>> sorted(_named("{'sad', 'happy'}"))
    ['happy', 'sad']
    """
    return set(re.findall(r"'([^']*)'", found))
