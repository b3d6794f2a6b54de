"""Questions sent to a server on loopback: what is sent, what is tried again, what is never said."""

from __future__ import annotations

import io
import wave
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from features.errors import ParamsError
from pipeline.params.speech_llm import SpeechLlmEntry
from pipeline.speech_llm.endpoint import ADDRESS, KEY, LONGEST_PAUSE, Endpoint, EndpointError, wav
from pipeline.speech_llm.models.base import Question, Turn
from tests.support.machines.chat_server import ChatServer, Reply, recording, said, serving

SECRET = "sk-a-key-that-nobody-may-see"
ENTRY = SpeechLlmEntry("remote", "endpoint", "some-model", "p.txt", attempts=3, seed=7)
SAMPLES = np.linspace(-1, 1, 1600, dtype=np.float32)
EXEMPLAR = Turn("an exemplar", SAMPLES[::2], "sad")
QUESTION = Question("u1", "be brief", (EXEMPLAR, Turn("and this?", SAMPLES)))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    for name in ("http_proxy", "HTTP_PROXY", KEY):
        monkeypatch.delenv(name, raising=False)
    with serving(ChatServer(lambda *_: said("happy"))) as server:
        monkeypatch.setenv(ADDRESS, server.address + "/")
        yield server


def ask(entry: SpeechLlmEntry = ENTRY) -> tuple[list[str | None], list[float]]:
    """Answers to one question, and the pauses before them."""
    pauses: list[float] = []
    return Endpoint(entry, pause=pauses.append).answers([QUESTION]), pauses


def test_what_is_sent(server: ChatServer) -> None:
    assert ask() == (["happy"], [])
    (request,) = server.asked
    system, shown, answer, last = request.pop("messages")
    assert request == {"model": "some-model", "max_tokens": 10, "temperature": 0, "seed": 7}
    assert system == {"role": "system", "content": "be brief"}
    assert answer == {"role": "assistant", "content": "sad"}
    assert [part["type"] for part in shown["content"]] == ["text", "input_audio"]
    assert last["content"][0] == {"type": "text", "text": "and this?"}
    with wave.open(io.BytesIO(recording({"messages": [last]}))) as file:
        assert (file.getframerate(), file.getnchannels(), file.getsampwidth()) == (16_000, 1, 2)
        samples = np.frombuffer(file.readframes(1600), "<i2") / 32767
    np.testing.assert_allclose(samples, SAMPLES, atol=0.5 / 32767 + 1e-6)
    assert server.keys == [None]


def test_a_recording_beyond_full_scale_is_clipped() -> None:
    assert wav(np.array([2.0, -2.0], np.float32)) == wav(np.array([1.0, -1.0], np.float32))


@pytest.mark.parametrize("status", [408, 429, 500, 503])
def test_what_a_server_may_take_back_is_tried_again(server: ChatServer, status: int) -> None:
    server.reply = lambda number, _: said("sad") if number == 2 else (status, {"error": "busy"})
    found, pauses = ask()
    assert found == ["sad"]
    assert 0.25 <= pauses[0] <= 0.5 <= pauses[1] <= 1.0


def test_as_long_as_the_server_asks_for(server: ChatServer) -> None:
    server.headers = {"Retry-After": "7"}
    server.reply = lambda number, _: said("sad") if number == 1 else (429, {})
    assert ask() == (["sad"], [7.0])
    server.headers = {"Retry-After": "86400"}
    server.reply = lambda number, _: said("sad") if number == 3 else (429, {})
    assert ask() == (["sad"], [LONGEST_PAUSE])


def test_requests_are_bounded_in_number(server: ChatServer) -> None:
    server.reply = lambda *_: (503, {"error": "never"})
    with pytest.raises(
        EndpointError, match=r"no answer .* 'u1' in 3 requests, the last: status 503"
    ):
        ask()
    assert len(server.asked) == 3


def test_no_answer_in_time_is_tried_again(server: ChatServer) -> None:
    import threading

    free = threading.Event()

    def reply(number: int, _: dict[str, Any]) -> Reply:
        if number == 0:
            free.wait(10)
        return said("sad")

    server.reply = reply
    found, pauses = ask(replace(ENTRY, timeout_seconds=0.2))
    free.set()
    assert found == ["sad"]
    assert len(pauses) == 1


@pytest.mark.parametrize("status", [400, 401, 404, 413, 302])
def test_any_other_status_ends_at_once(server: ChatServer, status: int) -> None:
    server.reply = lambda *_: (status, {"error": "this is what I think"})
    with pytest.raises(EndpointError, match=rf"refuses .* \(status {status}: .*what I think"):
        ask()
    assert len(server.asked) == 1


@pytest.mark.parametrize(
    "content", [{}, {"choices": []}, [1], b"<html>a page</html>", {"choices": [{"message": {}}]}]
)
def test_another_protocol_is_named(server: ChatServer, content: Any) -> None:
    server.reply = lambda *_: (200, content)
    with pytest.raises(EndpointError, match=r"expected choices\[0\].message.content"):
        ask()


def test_an_answer_that_ends_early_is_tried_again(server: ChatServer) -> None:
    """Its length is said before it."""
    server.headers = {"Content-Length": "400"}
    server.reply = lambda *_: (200, b'{"choices": [{"mess')
    with pytest.raises(EndpointError, match="in 3 requests, the last: the connection ended within"):
        ask()
    assert len(server.asked) == 3


def test_a_status_without_the_text_that_it_promises(server: ChatServer) -> None:
    server.headers = {"Transfer-Encoding": "chunked"}
    server.reply = lambda *_: (401, b"no length of a chunk")
    with pytest.raises(EndpointError, match=r"refuses .* \(status 401: Unauthorized\)"):
        ask()


def test_an_answer_that_no_file_can_hold(server: ChatServer) -> None:
    """Half of a pair of surrogates, as of a sign that was cut."""
    server.reply = lambda *_: (200, rb'{"choices": [{"message": {"content": "sad \ud83d"}}]}')
    assert ask()[0] == ["sad ?"]


def test_what_cannot_be_read_as_json(server: ChatServer) -> None:
    server.reply = lambda *_: (200, b"[" * 100_000)
    with pytest.raises(EndpointError, match=r"with '\[{300}'; expected"):
        ask()


def test_signs_that_a_terminal_obeys_are_not_passed_on(server: ChatServer) -> None:
    server.reply = lambda *_: (401, b"\x1b[2Jgone\nand more")
    with pytest.raises(EndpointError, match=r"\(status 401: \[2Jgone and more\)"):
        ask()


@pytest.mark.parametrize("asked", [0, 2])
def test_no_request_is_sent_again_after_a_signal(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch, asked: int
) -> None:
    monkeypatch.setattr("features.process.interrupts.asked", lambda: asked)
    server.reply = lambda *_: (503, {})
    with pytest.raises(EndpointError):
        ask()
    assert len(server.asked) == (1 if asked else ENTRY.attempts)


@pytest.mark.parametrize(
    "changed", [{"checkpoint": "other"}, {"max_new_tokens": 9}, {"seed": 8}], ids=str
)
@pytest.mark.usefixtures("server")
def test_whatever_changes_a_request_changes_where_its_answer_is_kept(
    changed: dict[str, Any],
) -> None:
    one, other = Endpoint(ENTRY), Endpoint(replace(ENTRY, **changed))
    assert one.request(QUESTION) != other.request(QUESTION)
    assert one.provenance != other.provenance


@pytest.mark.usefixtures("server")
def test_questions_that_are_written_in_another_way_have_other_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    before = Endpoint(ENTRY).provenance
    monkeypatch.setattr("pipeline.speech_llm.endpoint.wav", lambda _: b"another form")
    after = Endpoint(ENTRY).provenance
    assert {key for key in before if after[key] != before[key]} == {"layout_sha256"}


def test_an_answer_without_words_is_an_answer(server: ChatServer) -> None:
    server.reply = lambda *_: said(None)
    assert ask()[0] == [""]


def test_nothing_of_the_key_is_said(server: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the server says it back."""
    monkeypatch.setenv(KEY, SECRET)
    server.reply = lambda *_: (401, {"error": f"wrong key: {SECRET}"})
    with pytest.raises(EndpointError) as caught:
        ask()
    assert server.keys == [f"Bearer {SECRET}"]
    assert "wrong key: ***" in str(caught.value)
    server.reply = lambda *_: (200, {"given": SECRET})
    with pytest.raises(EndpointError) as other:
        ask()
    assert SECRET not in f"{caught.value} {other.value} {Endpoint(ENTRY).provenance}"
    assert server.address not in str(Endpoint(ENTRY).provenance)


@pytest.mark.parametrize("status", [200, 401])
@pytest.mark.parametrize("before", ["", "x" * 280])
def test_a_long_key_is_not_said_in_part(
    server: ChatServer, monkeypatch: pytest.MonkeyPatch, status: int, before: str
) -> None:
    """Nor one that reaches beyond what is shown, nor the address."""
    long = SECRET * 20
    monkeypatch.setenv(KEY, long)
    server.reply = lambda *_: (status, {"error": f"{before}{long} at {server.address}"})
    with pytest.raises(EndpointError) as caught:
        ask()
    assert SECRET[:8] not in str(caught.value)
    assert server.address not in str(caught.value)
    assert "***" in str(caught.value)


@pytest.mark.parametrize("made", [f"{SECRET}\n{SECRET}", f"{SECRET}\u2026"])
@pytest.mark.usefixtures("server")
def test_what_is_no_key(monkeypatch: pytest.MonkeyPatch, made: str) -> None:
    monkeypatch.setenv(KEY, made)
    with pytest.raises(ParamsError, match=KEY) as caught:
        Endpoint(ENTRY)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    "address",
    [
        *("", "localhost:8000", "ftp://host/v1", f"http://me:{SECRET}@host/v1"),
        *(f"http://host/v1?key={SECRET}", "http://[::1", "http://host:port/v1", "http://ho st/v1"),
        "http://host/\u00e4",
    ],
)
def test_what_is_no_address(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ADDRESS, address)
    with pytest.raises(ParamsError, match=ADDRESS) as caught:
        Endpoint(ENTRY)
    assert SECRET not in str(caught.value)


@pytest.mark.usefixtures("server")
def test_a_server_that_is_not_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(ADDRESS, "http://127.0.0.1:1/v1")
    with pytest.raises(EndpointError, match=r"in 3 requests, the last: .*refused"):
        ask()
