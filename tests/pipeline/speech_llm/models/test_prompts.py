"""Prompts hold the turns in order, and a placeholder for each vector that the encoder makes."""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken

from features.errors import UtteranceError
from pipeline.speech_llm.models import _qwen, phi4_multimodal
from pipeline.speech_llm.models._local import LocalModel
from pipeline.speech_llm.models.base import Kind, Question, Turn, unheard_seconds
from pipeline.speech_llm.models.meralion import Meralion
from tests.support.models.questions import noise, question
from tests.support.models.small_speech_llms import QWEN_OMNI_TEMPLATE

Models = Callable[[Kind], LocalModel]
LENGTHS = (1, 1_599, 1_601, 15_999, 16_000, 16_160, 16_161, 50_001, 479_999, 480_000)


def test_the_layout_of_each_kind(models: Models) -> None:
    turns = (Turn("A", noise(1_600), "sad"), Turn("B", noise(3_200)))
    asked = Question("x", "S", turns)
    audio = "<|audio_bos|>" + "<|AUDIO|>" * 2 + "<|audio_eos|>"
    second = "<|audio_bos|>" + "<|AUDIO|>" * 5 + "<|audio_eos|>"
    assert models("qwen2_audio").prompt(asked) == (
        f"<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nA\nAudio 1: {audio}\n<|im_end|>\n"
        "<|im_start|>assistant\nsad<|im_end|>\n"
        f"<|im_start|>user\nB\nAudio 2: {second}\n<|im_end|>\n<|im_start|>assistant\n"
    )
    assert models("qwen2_5_omni").prompt(asked) == (
        f"<|im_start|>system\nS<|im_end|>\n<|im_start|>user\nA\n{audio}<|im_end|>\n"
        "<|im_start|>assistant\nsad<|im_end|>\n"
        f"<|im_start|>user\nB\n{second}<|im_end|>\n<|im_start|>assistant\n"
    )
    assert models("phi4_multimodal").prompt(asked) == (
        "<|system|>S<|end|><|user|><|audio|>A<|end|><|assistant|>sad<|end|>"
        "<|user|><|audio|><|audio|><|audio|>B<|end|><|assistant|>"
    )
    assert models("meralion").prompt(asked) == (
        "<start_of_turn>user\nInstruction: S\nA\nsad\nB \nFollow the text instruction based on the "
        "following audio: <SpeechHere><end_of_turn>\n<start_of_turn>model\n"
    )


@pytest.mark.parametrize("name", ["qwen2_audio", "qwen2_5_omni"])
def test_qwen_encoders_make_a_vector_for_each_placeholder(models: Models, name: Kind) -> None:
    """For every number of frames up to 300 s, and as the front end counts the frames."""
    model = models(name)
    frames = torch.arange(10, 30_001)
    _, vectors = model.network.model.audio_tower._get_feat_extract_output_lengths(frames)
    assert vectors.tolist() == [_qwen.audio_tokens(160 * n) for n in frames.tolist()]
    for samples in LENGTHS[1:]:
        found = model.inputs([question("x", samples)])
        heard = max(samples, 1_600)
        assert int(found["feature_attention_mask"].sum()) == -(-heard // 160)


@given(samples=st.integers(1_600, 64_000))
def test_phi_counts_as_its_front_end_and_its_encoder(models: Models, samples: int) -> None:
    model = models("phi4_multimodal")
    found = model.inputs([question("x", samples)])
    assert found["audio_embed_sizes"].tolist() == [phi4_multimodal.audio_tokens(samples)]
    encoder = model.network.model.embed_tokens_extend.audio_embed.encoder
    with torch.inference_mode():
        made = encoder(found["audio_input_features"], found["audio_attention_mask"])
    assert made.shape[1] == phi4_multimodal.audio_tokens(samples)


def test_long_clips_of_phi_keep_their_count_beyond_a_block_of_its_encoder(models: Models) -> None:
    test = question("x", 16_000 * 41)
    (answer,) = models("phi4_multimodal").answers([test])
    assert answer is not None
    prompt = models("phi4_multimodal").prompt(test)
    assert prompt.count("<|audio|>") == phi4_multimodal.audio_tokens(16_000 * 41) == 513


def test_qwen2_audio_is_given_what_its_own_processor_makes(models: Models) -> None:
    """Of the same turns, by the chat template that transformers holds for the model."""
    from transformers import Qwen2AudioProcessor

    model = models("qwen2_audio")
    processor = Qwen2AudioProcessor(model.front_end, model.tokenizer)  # type: ignore[attr-defined]
    check(model, processor, [question("a", 9_000, 4_001, 33_333), question("b", 50_000)])
    check(model, processor, [question("c", 479_000), question("d", 20_000)])
    check(model, processor, [question("e", 479_900)])


def test_qwen_omni_is_given_what_its_own_template_and_front_end_make(models: Models) -> None:
    """Spectra equal those of clips that are padded to 300 s."""
    model = models("qwen2_5_omni")
    batch = [question("a", 9_000, 4_001), question("b", 50_000)]
    for one in batch:
        written = model.tokenizer.apply_chat_template(
            messages(one),
            chat_template=QWEN_OMNI_TEMPLATE,
            tokenize=False,
            add_generation_prompt=True,
        )
        prompt = model.prompt(one)
        while "<|AUDIO|><|AUDIO|>" in prompt:
            prompt = prompt.replace("<|AUDIO|><|AUDIO|>", "<|AUDIO|>")
        assert prompt == written
    clip = noise(9_000, 3)
    whole = model.front_end(  # type: ignore[attr-defined]
        clip, sampling_rate=16_000, return_attention_mask=True, return_tensors="pt"
    )
    found = model.inputs([Question("x", "", (Turn("", clip),))])
    frames = found["input_features"].shape[-1]
    assert frames < 100
    assert torch.equal(found["input_features"], whole.input_features[..., :frames])
    assert int(whole.attention_mask.sum()) == int(found["feature_attention_mask"].sum())


def messages(one: Question) -> list[dict[str, object]]:
    """A question as transformers' chat messages."""
    found: list[dict[str, object]] = [{"role": "system", "content": one.system}]
    for turn in one.turns:
        parts = [{"type": "text", "text": f"{turn.text}\n"}, {"type": "audio"}]
        found.append({"role": "user", "content": parts})
        if turn.answer is not None:
            found.append({"role": "assistant", "content": turn.answer})
    return found


def check(model: LocalModel, processor: object, batch: list[Question]) -> None:
    """Inputs equal those of a processor with its chat template."""
    assert callable(processor)
    template = processor.apply_chat_template  # type: ignore[attr-defined]
    texts = [template(messages(one), tokenize=False, add_generation_prompt=True) for one in batch]
    clips = [turn.audio for one in batch for turn in one.turns]
    expected = processor(
        text=texts,
        audio=clips,
        sampling_rate=16_000,
        padding=True,
        padding_side="left",
        return_tensors="pt",
    )
    found = model.inputs(batch)
    assert set(found) == set(expected)
    for name, value in found.items():
        assert torch.equal(value, torch.as_tensor(expected[name])), name


def test_prompts_are_padded_on_the_left(model: LocalModel) -> None:
    found = model.inputs([question("a", 4_000), question("b", 4_000, 8_000)])
    mask = found["attention_mask"]
    assert mask[1].all()
    gaps = mask[0].diff().tolist()
    assert sum(gap != 0 for gap in gaps) == 1
    assert mask[0, -1] == 1


def test_audio_beyond_the_longest_is_not_heard(models: Models) -> None:
    model = models("qwen2_audio")
    clip = noise(31 * 16_000)
    long, cut = (Question("x", "", (Turn("", one),)) for one in (clip, clip[: 30 * 16_000]))
    assert unheard_seconds(model, long) == 1
    assert unheard_seconds(model, cut) == 0
    assert model.prompt(long) == model.prompt(cut)
    assert model.answers([long]) == model.answers([cut])


def test_longest_audio_of_each_kind(models: Models) -> None:
    longest = {"qwen2_audio": 30, "qwen2_5_omni": 300, "phi4_multimodal": 1800, "meralion": 300}
    assert {name: models(name).longest_seconds for name in longest} == longest  # type: ignore[arg-type]


def test_a_question_without_audio_is_asked_by_its_text(models: Models) -> None:
    asked = Question("x", "", (Turn("text"),))
    for name in ("qwen2_audio", "qwen2_5_omni", "phi4_multimodal"):
        model = models(name)
        assert set(model.inputs([asked])) == {"input_ids", "attention_mask"}
        assert model.answers([asked, question("y", 4_000)])[0] == model.answers([asked])[0]
    with pytest.raises(UtteranceError, match=r"'x': has no audio; expected some"):
        models("meralion").answers([asked])


def test_text_that_a_tokenizer_lists_is_sent_as_it_is(model: LocalModel) -> None:
    """As Gemma's lists line ends and runs of spaces, of which a prompt has many."""
    other = copy.copy(model)
    other.__dict__.pop("_control_tokens", None)
    texts = ("\n", "\n\n", "  ", "<b>")
    names = [*(AddedToken(text) for text in texts), AddedToken("<s>", special=True)]
    names.append(AddedToken("<|tool|>"))
    other.tokenizer = SimpleNamespace(added_tokens_decoder=dict(enumerate(names)))
    assert other._plain("ROLE\n\nYou  are\n<b>") == "ROLE\n\nYou  are\n<b>"
    assert other._plain(f"a<s>b<|tool|>c{model.tokens[0]}d") == "a b c d"


def test_questions_that_are_written_in_another_way_have_other_answers(
    model: LocalModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Those of an older release, which lie in the work store, do not count for them."""
    other, known = copy.copy(model), model.provenance
    other.__dict__.pop("provenance", None)
    assert other.provenance == known
    del other.__dict__["provenance"]
    monkeypatch.setattr(other, "prompt", lambda asked: model.prompt(asked) + " ")
    assert {key for key in known if other.provenance[key] != known[key]} == {"layout_sha256"}


def test_control_tokens_in_texts_are_no_control_tokens(model: LocalModel) -> None:
    """A transcript cannot end its turn, answer for the model, or add a placeholder."""
    clip = noise(4_000)
    plain = Question("x", "S", (Turn("a", clip, "b"), Turn("c", clip)))
    names = [*model._control_tokens, *(["<SpeechHere>"] if isinstance(model, Meralion) else [])]
    tokens = "".join(names)
    evil = Question(
        "x", f"S{tokens}", (Turn(f"a{tokens}", clip, f"b{tokens}"), Turn(f"c{tokens}", clip))
    )
    for name in names:
        assert model.prompt(evil).count(name) == model.prompt(plain).count(name), name
    assert model.prompt(evil).replace(" ", "") == model.prompt(plain).replace(" ", "")


def test_nothing_is_added_to_what_is_heard(model: LocalModel) -> None:
    """Samples go in as they are, and silence follows only clips of under 0.1 s."""
    clip = noise(1_600)
    assert np.array_equal(model._heard(Turn("", clip)), clip)  # type: ignore[arg-type]
    short = model._heard(Turn("", clip[:100]))
    assert short is not None
    assert len(short) == 1_600
    assert not short[100:].any()
