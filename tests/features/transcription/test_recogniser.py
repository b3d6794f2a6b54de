"""Recognised words are the most probable ones, whatever is computed beside them."""

from __future__ import annotations

import dataclasses
import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from hypothesis import given
from hypothesis import strategies as st

from features.backbones.whisper import WINDOW
from features.corpus.utterance import Utterance
from features.errors import CheckpointError, ParamsError
from features.transcription.decoding import greedy
from features.transcription.recogniser import Recogniser
from features.transcription.settings import Transcription
from features.transcription.windows import SEARCHED, quietest, windows
from tests.conftest import RATE, ManifestMaker
from tests.support.models.small_whisper import write_whisper
from tests.support.paths import SHARED

RAVDESS = SHARED / "data" / "ravdess" / "Actor_01"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Transcription:
    return Transcription(**write_whisper(tmp_path_factory.mktemp("english")))


@pytest.fixture(scope="module")
def polyglot(tmp_path_factory: pytest.TempPathFactory) -> Transcription:
    return Transcription(**write_whisper(tmp_path_factory.mktemp("many"), multilingual=True))


def most_probable(recogniser: Recogniser, samples: Any, prompt: list[int]) -> str:
    """The words by the definition: the whole text anew for each token, one window alone."""
    network, tokens = recogniser.network, recogniser.tokens
    mel = recogniser.front_end(samples, sampling_rate=RATE, return_tensors="pt").input_features
    found: list[int] = []
    while len(found) < tokens.most:
        ids = torch.tensor([[*prompt, *found]])
        with torch.no_grad():
            logits = network(input_features=mel, decoder_input_ids=ids).logits[0, -1]
        logits[list(tokens.suppressed)] = -math.inf
        if not found:
            logits[list(tokens.suppressed_first)] = -math.inf
        best = int(logits.argmax())
        if best == tokens.end:
            break
        found.append(best)
    return str(recogniser.tokenizer.decode(found)).strip()


def test_words_are_the_most_probable_ones_of_each_utterance(
    small: Transcription, make_manifest: ManifestMaker
) -> None:
    recogniser = Recogniser(small)
    manifest = make_manifest([0.7, 2.0, 1.3, 0.2, 1.1])
    heard = list(recogniser.words(manifest))
    assert [id for id, _ in heard] == [u.id for u in manifest]
    prompt = recogniser.tokenizer.convert_tokens_to_ids(
        ["<|startoftranscript|>", "<|notimestamps|>"]
    )
    for utterance, (_, words) in zip(manifest, heard, strict=True):
        (samples,) = windows(utterance)
        assert words == most_probable(recogniser, samples, prompt)
    assert len({words for _, words in heard}) > 1
    assert recogniser.failed == {}
    # A part is another batch, and gives the same words.
    assert list(recogniser.words(manifest[1:3])) == heard[1:3]


def test_a_language_is_given_or_detected(
    polyglot: Transcription, small: Transcription, make_manifest: ManifestMaker
) -> None:
    manifest = make_manifest([1.0])
    (samples,) = windows(manifest[0])
    by_code = {}
    for code in ("en", "de"):
        recogniser = Recogniser(dataclasses.replace(polyglot, language=code))
        names = ["<|startoftranscript|>", f"<|{code}|>", "<|transcribe|>", "<|notimestamps|>"]
        prompt = recogniser.tokenizer.convert_tokens_to_ids(names)
        ((_, by_code[code]),) = recogniser.words(manifest)
        assert by_code[code] == most_probable(recogniser, samples, prompt)
    assert by_code["en"] != by_code["de"]
    ((_, detected),) = Recogniser(polyglot).words(manifest)
    assert detected in by_code.values()
    with pytest.raises(ParamsError, match=r"'fr': the checkpoint does not know it; .* de, en"):
        Recogniser(dataclasses.replace(polyglot, language="fr"))
    with pytest.raises(ParamsError, match="expected one of en, or null"):
        Recogniser(dataclasses.replace(small, language="de"))


def test_an_utterance_that_cannot_be_used_is_left_out(
    small: Transcription, make_manifest: ManifestMaker, tmp_path: Path
) -> None:
    first, second = make_manifest([0.5, 0.6])
    (tmp_path / "noise.wav").write_bytes(b"no sound" * 20)
    broken = Utterance("broken", audio=str(tmp_path / "noise.wav"))
    recogniser = Recogniser(small)
    heard = dict(recogniser.words([broken, first, Utterance("mute", text="said"), second]))
    assert list(heard) == [first.id, second.id]
    assert list(recogniser.failed) == ["broken", "mute"]
    assert recogniser.failed["mute"] == "has no audio"


def test_long_recordings_are_windows_that_follow_each_other(
    small: Transcription, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    samples = (rng.normal(size=70 * RATE) * 0.1).astype(np.float32)
    samples[27 * RATE : 28 * RATE] = 0.0  # a pause
    path = tmp_path / "long.wav"
    soundfile.write(path, samples, RATE, subtype="FLOAT")
    parts = list(windows(Utterance("long", audio=str(path))))
    np.testing.assert_array_equal(np.concatenate(parts), samples)
    assert max(map(len, parts)) <= WINDOW
    assert 27 * RATE < len(parts[0]) < 28 * RATE
    edges = np.cumsum([0, *map(len, parts)]) / RATE
    spans = [
        Utterance(f"w{n}", audio=str(path), start=float(start), stop=float(stop))
        for n, (start, stop) in enumerate(itertools.pairwise(edges))
    ]
    recogniser = Recogniser(small)
    ((_, whole),) = recogniser.words([Utterance("long", audio=str(path), seconds=70.0)])
    assert whole == " ".join(words for _, words in recogniser.words(spans) if words)


@given(st.integers(0, SEARCHED // RATE * 50 - 10))
def test_a_cut_is_in_the_middle_of_the_quietest_place(frame: int) -> None:
    window = np.ones(WINDOW, np.float32)
    begin = WINDOW - SEARCHED + frame * RATE // 50
    window[begin : begin + RATE // 5] = 0.5
    assert quietest(window) == begin + RATE // 10


def test_windows_without_speech_have_no_words(
    small: Transcription, make_manifest: ManifestMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both a probable silence and improbable words are needed."""
    recogniser, manifest = Recogniser(small), make_manifest([0.5])
    ((_, words),) = recogniser.words(manifest)
    assert words
    for silent, doubtful, expected in ((-1.0, 0.0, ""), (-1.0, -99.0, words), (2.0, 0.0, words)):
        monkeypatch.setattr("features.transcription.decoding.NO_SPEECH", silent)
        monkeypatch.setattr("features.transcription.decoding.DOUBTFUL", doubtful)
        assert list(recogniser.words(manifest)) == [("u0", expected)]


def test_what_does_not_fit_the_device_is_halved_and_then_left_out(
    small: Transcription, make_manifest: ManifestMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    recogniser, manifest = Recogniser(small), make_manifest([0.5, 0.6, 0.7])
    expected, most = list(recogniser.words(manifest)), 1

    def narrow(network: Any, mel: Any, *rest: Any) -> list[list[int]]:
        if len(mel) > most:
            raise torch.OutOfMemoryError
        return greedy(network, mel, *rest)

    monkeypatch.setattr("features.transcription.recogniser.greedy", narrow)
    assert list(recogniser.words(manifest)) == expected
    most = 0
    assert list(recogniser.words(manifest)) == []
    assert set(recogniser.failed) == {u.id for u in manifest}
    assert all(
        why.startswith("does not fit the memory of cpu") for why in recogniser.failed.values()
    )


def test_the_provenance_tells_checkpoints_and_settings_apart(
    small: Transcription, polyglot: Transcription
) -> None:
    settings = (small, polyglot, dataclasses.replace(polyglot, language="de"))
    found = [Recogniser(each).provenance() for each in settings]
    assert found[0] == Recogniser(small).provenance()
    assert found[0]["weights_sha256"] == found[1]["weights_sha256"]  # the same seed
    assert found[1] != found[2]


def test_checkpoints_that_are_no_recognisers_are_refused(
    small: Transcription, tmp_path: Path
) -> None:
    from transformers import WhisperTokenizer

    from tests.contracts.checkpoints import whisper

    with pytest.raises(CheckpointError, match="absent"):
        Recogniser(dataclasses.replace(small, checkpoint="absent"))
    folder = tmp_path / "encoder"
    whisper.write(folder)
    WhisperTokenizer(vocab={"a": 0, "<|endoftext|>": 1}, merges=[]).save_pretrained(folder)
    with pytest.raises(CheckpointError, match=r"no <\|startoftranscript\|>"):
        Recogniser(dataclasses.replace(small, checkpoint=str(folder)))


@pytest.mark.slow
@pytest.mark.embedded
@pytest.mark.real_data
def test_the_embedded_checkpoint_hears_what_was_said() -> None:
    """Statement 02 of RAVDESS, in the emotions calm and happy."""
    clips = [RAVDESS / f"03-01-{emotion}-01-02-01-01.flac" for emotion in ("02", "03")]
    if not clips[0].exists():
        pytest.skip("../shared/data/ravdess is absent")
    heard = Recogniser(Transcription()).words(
        Utterance(path.stem, audio=str(path)) for path in clips
    )
    assert [words for _, words in heard] == ["Dogs are sitting by the door."] * 2
