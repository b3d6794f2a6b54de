"""Answers are greedy, of the new tokens alone, and do not depend on the rest of a batch."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from pipeline.speech_llm.models._local import LocalModel
from pipeline.speech_llm.models.base import Kind, Question, Turn
from tests.pipeline.speech_llm.models.conftest import read
from tests.support.models.questions import noise, question

BATCH = [
    question("short", 700),
    question("one", 16_000, seed=1),
    question("few", 9_000, 4_000, 20_000, 1_700, seed=2),
    question("longest", 48_000, 8_000, seed=3),
]


def test_a_batch_answers_as_each_question_alone(model: LocalModel) -> None:
    together = model.answers(BATCH)
    assert together == [model.answers([one])[0] for one in BATCH]
    rows = logits(model, BATCH)
    alone = torch.cat([logits(model, [one]) for one in BATCH])
    torch.testing.assert_close(rows, alone, rtol=1e-4, atol=1e-4)
    assert torch.cdist(rows, rows).add(torch.eye(len(BATCH))).min() > 0.01  # rows differ


def test_no_question_has_no_answer(models: Callable[[Kind], LocalModel]) -> None:
    assert models("qwen2_5_omni").answers([]) == []


def test_answers_in_half_precision(kind: Kind, folders: Callable[[Kind], Path]) -> None:
    """Spectra are rounded with the weights; logits stay near those of float32."""
    whole, half = (read(kind, folders(kind), dtype=dtype) for dtype in ("auto", "bfloat16"))
    assert (whole.provenance["dtype"], half.provenance["dtype"]) == ("float32", "bfloat16")
    assert all(answer is not None for answer in half.answers(BATCH))
    given = {
        name: value.bfloat16() if value.is_floating_point() else value
        for name, value in half.inputs(BATCH[1:2]).items()
    }
    with torch.inference_mode():
        near = half.network(**given).logits[:, -1].float()
    exact = logits(whole, BATCH[1:2])
    assert (near - exact).abs().max() < 0.2 * exact.abs().max()


@pytest.mark.parametrize("turn", [0, -1])
def test_the_answer_depends_on_the_audio_that_is_heard(model: LocalModel, turn: int) -> None:
    """Logits of the first new token change with the audio of the turn."""
    first = question("x", 20_000, 20_000)
    turns = list(first.turns)
    turns[turn] = Turn(turns[turn].text, noise(20_000, 77, 0.01), turns[turn].answer)
    changed = Question("x", first.system, tuple(turns))
    same = torch.equal(logits(model, [first]), logits(model, [changed]))
    assert same == (turn == 0 and not model.hears_exemplars)


def logits(model: LocalModel, questions: Sequence[Question]) -> torch.Tensor:
    """Logits `[B, V]` of the first new token."""
    with torch.inference_mode():
        found: torch.Tensor = model.network(**model.inputs(questions)).logits[:, -1]
    return found


def test_answers_are_the_most_probable_token_each_time(model: LocalModel) -> None:
    """Here without a cache of keys: the network sees the whole text anew for each token."""
    inputs = dict(model.inputs(BATCH[1:2]))
    found: list[int] = []
    for _ in range(model.settings.max_new_tokens):
        with torch.inference_mode():
            token = model.network(**inputs).logits[0, -1].argmax()
        found.append(int(token))
        if found[-1] in model.network.generation_config.eos_token_id:
            break
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        inputs["input_ids"] = torch.cat([ids, token[None, None]], dim=1)
        inputs["attention_mask"] = torch.cat([mask, mask[:, -1:]], dim=1)
    expected = model.tokenizer.decode(found, skip_special_tokens=True)
    assert model.answers(BATCH[1:2]) == [expected]
    assert expected


def test_the_checkpoint_says_what_ends_an_answer_and_not_how_it_is_drawn(
    folders: Callable[[Kind], Path], models: Callable[[Kind], LocalModel], tmp_path: Path
) -> None:
    whole = models("qwen2_audio")
    inputs = whole.inputs(BATCH[1:2])
    new = whole.network.generate(**inputs)[0, inputs["input_ids"].shape[1] :].tolist()
    end = new[3]
    folder = tmp_path / "folder"
    shutil.copytree(folders("qwen2_audio"), folder)
    drawn = {"do_sample": True, "temperature": 5.0, "top_k": 50, "repetition_penalty": 3.0}
    settings = {"eos_token_id": [end], "max_new_tokens": 99, **drawn}
    (folder / "generation_config.json").write_text(json.dumps(settings), encoding="utf-8")
    stopped = read("qwen2_audio", folder).answers(BATCH[1:2])
    before = new[: new.index(end) + 1]  # the token that ends it is no special one here
    assert stopped == [whole.tokenizer.decode(before, clean_up_tokenization_spaces=False)]


def test_an_answer_has_no_more_tokens_than_allowed(
    folders: Callable[[Kind], Path], models: Callable[[Kind], LocalModel]
) -> None:
    """Two here, of a tokenizer with a token for each byte."""
    (whole,) = models("qwen2_5_omni").answers(BATCH[1:2])
    (short,) = read("qwen2_5_omni", folders("qwen2_5_omni"), max_new_tokens=2).answers(BATCH[1:2])
    assert whole is not None
    assert short is not None
    assert 0 < len(short) <= 2 < len(whole)


class Small:
    """A network for so many seconds of audio in a batch."""

    def __init__(self, network: Any, rows: int) -> None:
        self.network, self.rows, self.seen = network, rows, list[int]()

    def __call__(self, **inputs: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(inputs["input_ids"]))
        if self.seen[-1] > self.rows:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        found: torch.Tensor = self.network(**inputs)
        return found


def test_a_batch_that_does_not_fit_is_halved(
    folders: Callable[[Kind], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = read("qwen2_5_omni", folders("qwen2_5_omni"))
    expected = model.answers(BATCH)
    small = Small(model.network.generate, rows=1)
    monkeypatch.setattr(model.network, "generate", small)
    assert model.answers(BATCH) == expected
    assert small.seen == [
        4,
        4,
        2,
        2,
        1,
        1,
        1,
        1,
    ]  # tried twice; then it is known that two do not fit
    small.seen.clear()
    assert model.answers(BATCH[:2]) == expected[:2]
    assert not model.failed


def test_a_question_that_does_not_fit_by_itself_has_no_answer(
    folders: Callable[[Kind], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = read("qwen2_5_omni", folders("qwen2_5_omni"))
    monkeypatch.setattr(model.network, "generate", Small(model.network.generate, rows=0))
    assert model.answers(BATCH[:1]) == [None]
    assert model.failed["short"].startswith("does not fit the memory of cpu by itself (0 s in 1")
