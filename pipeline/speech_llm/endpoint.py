"""Asks a server that speaks OpenAI's chat protocol, such as vLLM, in place of a local checkpoint.

The address (`HERONRY_ENDPOINT`, such as http://127.0.0.1:8000/v1) and the key, if the server wants
one (`HERONRY_ENDPOINT_KEY`), come from the environment alone: neither stands in params.yaml, in a
record or in a message. A recording is sent as WAV, 16 bits at 16 kHz, in a part `input_audio`.

A question is sent at most `attempts` times. What the server may take back is tried again, after
a pause that doubles from half a second to half a minute, or as long as the server asks for
(`Retry-After`): status 408, 409, 425, 429 and 5xx, a lost connection, and no answer in time. Any
other status ends the run at once; answers that are there stay.

The standard library is enough for one JSON object there and one back.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import random
import time
import urllib.error
import urllib.request
import wave
from collections.abc import Callable, Sequence
from http.client import HTTPException
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from features.audio.read import SAMPLE_RATE_HZ, Samples
from features.errors import HeronryError, ParamsError
from features.process import interrupts
from pipeline.params.speech_llm import SpeechLlmEntry
from pipeline.speech_llm.models.base import EXAMPLE, Question, Turn

ADDRESS, KEY = "HERONRY_ENDPOINT", "HERONRY_ENDPOINT_KEY"
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0  # seconds
_TAKEN_BACK = (408, 409, 425, 429)  # and all from 500 on
_MOST_BYTES = 1 << 20  # of an answer
_SHOWN = 300  # characters of what a server says
_HIDDEN = "***"


class EndpointError(HeronryError):
    """A server refuses a question, cannot be reached, or answers something else."""


class Endpoint:
    """A `SpeechModel` that asks a server; questions may be asked by several threads.

    Args:
        entry: Entry of `speech_llms`.
        pause: Function that waits some seconds.

    Raises:
        ParamsError: If no address is set, or it is none, or the key is none.
    """

    longest_seconds: float | None = None
    hears_exemplars = True

    def __init__(
        self, entry: SpeechLlmEntry, *, pause: Callable[[float], object] = time.sleep
    ) -> None:
        self.entry, self._pause = entry, pause
        self.failed: dict[str, str] = {}
        base = address()
        self._url, self._key = f"{base}/chat/completions", key()
        parts = urlsplit(base)
        hidden = (self._key, base, parts.netloc, parts.hostname)
        self._secrets = [each for each in hidden if each]

    @property
    def provenance(self) -> dict[str, Any]:
        """What is known of the model: its name, since a server says nothing of its weights."""
        entry = self.entry
        return {
            "kind": entry.kind,
            "checkpoint": entry.checkpoint,
            "revision": entry.revision,
            "weights": "not known: a server does not say which it has",
            "layout_sha256": hashlib.sha256(self._body(EXAMPLE)).hexdigest(),
            "decoding": "temperature 0",
            "max_new_tokens": entry.max_new_tokens,
            "seed": entry.seed,  # which is sent, though it ought not to matter at temperature 0
        }

    def answers(self, questions: Sequence[Question]) -> list[str | None]:
        """Raw answers in order.

        Raises:
            EndpointError: If a question is refused, or has no answer after all attempts.
        """
        return [self._answer(question) for question in questions]

    def _answer(self, question: Question) -> str:
        body = self._body(question)
        why, asked_for = "", 0.0
        for attempt in range(self.entry.attempts):
            if attempt and interrupts.asked():
                break  # who stops the run need not wait for further requests
            if attempt:
                self._pause(max(_backoff(attempt), asked_for))
            try:
                return self._text(self._sent(body), question)
            except urllib.error.HTTPError as error:
                why, asked_for = f"status {error.code}: {self._said(error)}", _retry_after(error)
                if error.code not in _TAKEN_BACK and error.code < 500:
                    raise EndpointError(
                        f"the server refuses the question about {question.id!r} ({why}); expected "
                        f"an answer: correct `speech_llms.{self.entry.name}`, {ADDRESS} or {KEY}, "
                        "and run the same again. Answers that are there are kept"
                    ) from error
            except (OSError, HTTPException) as error:
                asked_for = 0.0
                why = self._shown(str(getattr(error, "reason", error))) or type(error).__name__
        raise EndpointError(
            f"no answer to the question about {question.id!r} in {self.entry.attempts} requests, "
            f"the last: {why}. Expected a server at {ADDRESS}: see that it runs, or raise "
            f"`speech_llms.{self.entry.name}.attempts`, and run the same again. Answers that are "
            "there are kept"
        )

    def request(self, question: Question) -> dict[str, Any]:
        """The JSON object that is sent for a question."""
        messages: list[dict[str, Any]] = []
        if question.system:
            messages.append({"role": "system", "content": question.system})
        for turn in question.turns:
            messages.append({"role": "user", "content": _parts(turn)})
            if turn.answer is not None:
                messages.append({"role": "assistant", "content": turn.answer})
        return {
            "model": self.entry.checkpoint,
            "messages": messages,
            "max_tokens": self.entry.max_new_tokens,
            "temperature": 0,
            "seed": self.entry.seed,
        }

    def _body(self, question: Question) -> bytes:
        return json.dumps(self.request(question)).encode()

    def _sent(self, body: bytes) -> str:
        headers = {"Content-Type": "application/json"}
        headers |= {"Authorization": f"Bearer {self._key}"} if self._key else {}
        request = urllib.request.Request(self._url, body, headers, method="POST")
        with _OPENER.open(request, timeout=self.entry.timeout_seconds) as response:
            text: bytes = response.read(_MOST_BYTES)
            if len(text) < _MOST_BYTES and response.length:
                raise ConnectionError("the connection ended within the answer")
        return text.decode(errors="replace")

    def _text(self, answer: str, question: Question) -> str:
        try:
            text = json.loads(answer)["choices"][0]["message"]["content"]
        except (ValueError, KeyError, IndexError, TypeError, RecursionError):
            text = 0
        if text is None:
            return ""  # what some servers say for an answer without words
        if not isinstance(text, str):
            raise EndpointError(
                f"the server answers the question about {question.id!r} with "
                f"{self._shown(answer)!r}; expected choices[0].message.content: is "
                f"{ADDRESS} that of OpenAI's chat protocol, such as http://127.0.0.1:8000/v1?"
            )
        # JSON may hold half a surrogate pair, which no file can.
        return text.encode(errors="replace").decode()

    def _said(self, error: urllib.error.HTTPError) -> str:
        """What a server says with a status, in one line."""
        try:
            text = error.read(_MOST_BYTES).decode(errors="replace")
        except (OSError, HTTPException):
            text = ""
        return self._shown(text) or str(error.reason)

    def _shown(self, text: str) -> str:
        """The beginning of what a server says, in one line, without key and address."""
        for secret in self._secrets:
            text = text.replace(secret, _HIDDEN)
        plain = "".join(sign if sign.isprintable() else " " for sign in text)
        return " ".join(plain.split())[:_SHOWN]


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Follows no redirection, which would send recordings and the key to another place."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        """Refuse: the status is reported."""


_OPENER = urllib.request.build_opener(_NoRedirect)


def address() -> str:
    """The base address of the endpoint, without a slash at its end.

    Raises:
        ParamsError: If it is not set, or no http address without user, password and query.
    """
    given = os.environ.get(ADDRESS, "").strip().rstrip("/")
    expected = f"export {ADDRESS}=http://127.0.0.1:8000/v1, or wherever the server is"
    if not given:
        raise ParamsError(f"{ADDRESS} is not set; expected the address of a server: {expected}")
    if not _is_address(given):
        raise ParamsError(
            f"{ADDRESS} is no http address without user, password and query: {expected}; a key "
            f"belongs into {KEY}"
        )
    return given


def key() -> str:
    """The key of the endpoint; empty for none.

    Raises:
        ParamsError: If it holds what no header can, such as the end of a line. It is not shown.
    """
    given = os.environ.get(KEY, "").strip()
    if not (given.isascii() and given.isprintable()):
        raise ParamsError(
            f"{KEY} holds the end of a line, or signs beyond ASCII; expected the key alone"
        )
    return given


def _is_address(given: str) -> bool:
    if not (given.isascii() and given.isprintable()) or set(" @?#") & set(given):
        return False
    try:
        parts = urlsplit(given)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:  # of a port that is no number, or brackets that do not match
        return False


def _parts(turn: Turn) -> list[dict[str, Any]]:
    parts: list[dict[str, Any]] = [{"type": "text", "text": turn.text}]
    if turn.audio is not None:
        data = base64.b64encode(wav(turn.audio)).decode()
        # Behind the text: the published prompt speaks of "the following audio clip".
        parts.append({"type": "input_audio", "input_audio": {"data": data, "format": "wav"}})
    return parts


def wav(samples: Samples) -> bytes:
    """A recording `[L]` at 16 kHz, full scale at 1, as a WAV file of 16 bits."""
    whole = np.round(np.clip(samples, -1, 1) * 32767).astype("<i2")
    file = io.BytesIO()
    with wave.open(file, "wb") as out:
        out.setnchannels(1)
        out.setsampwidth(2)
        out.setframerate(SAMPLE_RATE_HZ)
        out.writeframes(whole.tobytes())
    return file.getvalue()


def _backoff(attempt: int) -> float:
    """Seconds before an attempt, the first being 0; drawn from the upper half of a doubling one."""
    longest = min(LONGEST_PAUSE, FIRST_PAUSE * 2.0 ** (attempt - 1))
    return longest * random.uniform(0.5, 1)


def _retry_after(error: urllib.error.HTTPError) -> float:
    """Seconds that the server asks to wait, at most `LONGEST_PAUSE`; 0 if it names none."""
    given = str(error.headers.get("Retry-After", ""))
    seconds = float(given) if given.isdecimal() else 0.0
    return min(seconds, LONGEST_PAUSE)
