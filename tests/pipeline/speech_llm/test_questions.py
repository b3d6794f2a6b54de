"""Exemplars, keys and batches of the questions of a run."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.corpus.manifest import Label
from features.corpus.utterance import Utterance
from features.errors import ManifestError, ParamsError
from pipeline.speech_llm.exemplars import choose
from pipeline.speech_llm.prompt import Prompt
from pipeline.speech_llm.questions import Plan, plan

CLASSES = ("angry", "happy", "sad")
PROMPT = Prompt("p.txt", "0" * 64, "be brief", "words: <transcription>", classes_replaced=False)


def label(number: int, split: str, **facts: object) -> Label:
    given: dict[str, object] = {
        "label": CLASSES[number % 3],
        "speaker": f"s{number % 5}",
        "dialogue": f"d{number // 4}",
        "text": f"line {number}",
        "audio": f"{number}.wav",
        "splits": (split,),
    }
    return Label(id=f"u{number:03d}", **(given | facts))  # type: ignore[arg-type]


def corpus(train: int = 40, others: int = 12) -> list[Label]:
    whole = [label(n, "train") for n in range(train)]
    return whole + [label(n, ("valid", "test")[n % 2]) for n in range(train, train + others)]


def planned(labels: list[Label], shots: int = 0, seed: int = 0, prompt: Prompt = PROMPT) -> Plan:
    utterances = {
        each.id: Utterance(
            each.id, each.audio, None if each.audio is None else "ab" * 32, each.text, seconds=1.0
        )
        for each in labels
    }
    for number, each in enumerate(labels):
        if each.audio is not None:
            sha256 = f"{number:064x}"
            utterances[each.id] = replace(
                utterances[each.id], sha256=sha256, seconds=1 + number / 8
            )
    folds = len(labels[0].splits)
    return plan(labels, utterances, prompt, folds, shots=shots, seed=seed)


def chosen(labels: list[Label], shots: int = 5, seed: int = 0) -> list[Label]:
    return choose(labels, 0, shots, seed=seed, with_words=True)


@given(st.integers(0, 20), st.integers(0, 99), st.randoms())
def test_exemplars_are_training_rows_spread_over_the_classes(
    shots: int, seed: int, random: object
) -> None:
    """They do not depend on the order of the corpus."""
    labels = corpus()
    found = chosen(labels, shots, seed)
    assert len({each.id for each in found}) == shots
    assert all(each.splits == ("train",) for each in found)
    counts = [Counter(each.label for each in found)[name] for name in CLASSES]
    assert max(counts) - min(counts) <= 1
    shuffled = list(labels)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert chosen(shuffled, shots, seed) == found


def test_another_seed_chooses_others() -> None:
    assert len({tuple(each.id for each in chosen(corpus(), seed=seed)) for seed in range(5)}) == 5


def test_no_exemplar_is_of_the_dialogue_or_recording_of_a_scored_row() -> None:
    """Though the corpus allows such a leak."""
    train = [label(n, "train", dialogue="d0", audio=f"{n}.wav") for n in range(6)]
    train += [label(n, "train", dialogue=None, audio="long.wav", start=n) for n in range(6, 12)]
    free = [label(n, "train", dialogue="d9") for n in range(12, 18)]
    scored = [label(20, "test", dialogue="d0"), label(21, "valid", dialogue=None, audio="long.wav")]
    assert {each.dialogue for each in chosen([*train, *free, *scored])} == {"d9"}
    with pytest.raises(ParamsError, match="given 7, and fold 0 has 6 training rows"):
        chosen([*train, *free, *scored], 7)


def test_no_exemplar_is_a_scored_recording_under_another_name() -> None:
    labels = [replace(each, dialogue=None) for each in corpus(6, 2)]
    utterances = {
        each.id: Utterance(each.id, each.audio, f"{n % 6:064x}", each.text, seconds=1.0)
        for n, each in enumerate(labels)
    }
    found = plan(labels, utterances, PROMPT, 1, shots=4, seed=0)
    # The first two training rows hold what the two scored ones do.
    assert sorted(found.exemplars[0]) == [each.id for each in labels[2:6]]


def test_exemplars_have_words_if_the_prompt_asks_for_them() -> None:
    labels = [replace(each, text=None) if n % 2 else each for n, each in enumerate(corpus())]
    assert all(each.text for each in chosen(labels))
    assert not all(each.text for each in choose(labels, 0, 9, seed=0, with_words=False))


def test_a_question_about_an_utterance_is_asked_once_for_all_folds() -> None:
    labels = [
        replace(each, splits=("test", "valid") if n % 2 else ("train", "test"))
        for n, each in enumerate(corpus())
    ]
    found = planned(labels)
    scored = sum(split != "train" for each in labels for split in each.splits)
    assert (len(found.rows), len(found.asked)) == (scored, len(labels))


def test_with_exemplars_each_fold_has_questions_of_its_own() -> None:
    labels = [
        replace(each, splits=("train", "test") if n % 4 < 2 else ("test", "train"), dialogue=None)
        for n, each in enumerate(corpus())
    ]
    found = planned(labels, shots=2)
    assert len(found.asked) == len(found.rows)
    for fold, ids in enumerate(found.exemplars):
        asked = [found.asked[key] for (of, _), key in found.rows.items() if of == fold]
        assert {tuple(e.id for e, _, _ in each.exemplars) for each in asked} == {ids}


def test_whatever_is_sent_is_part_of_the_key() -> None:
    labels = corpus()
    keys = [set(planned(labels, shots, seed).asked) for shots, seed in ((0, 0), (2, 0), (2, 1))]
    keys.append(set(planned(labels, prompt=replace(PROMPT, system="be long")).asked))
    keys.append(set(planned(labels, prompt=replace(PROMPT, user="<transcription>")).asked))
    for one, other in pairwise(keys):
        assert one.isdisjoint(other)
    assert set(planned(labels, seed=1).asked) == keys[0]


@given(st.floats(0, 60))
def test_batches_hold_each_question_once_and_are_not_too_long(seconds: float) -> None:
    found = planned(corpus())
    batches = found.batches(seconds)
    assert sorted(each.key for batch in batches for each in batch) == sorted(found.asked)
    lengths = [each.seconds for batch in batches for each in batch]
    assert lengths == sorted(lengths, reverse=True)
    for batch in batches:
        assert len(batch) == 1 or batch[0].seconds * len(batch) <= seconds


def test_utterances_without_words_or_audio() -> None:
    labels = corpus()
    labels[-1] = replace(labels[-1], text=None)
    labels[-2] = replace(labels[-2], audio=None)
    found = planned(labels)
    assert found.wordless == {labels[-1].id}
    assert found.dropped == {labels[-2].id: "has no audio"}
    assert (0, labels[-2].id) not in found.rows
    wordless = [replace(each, text=None) for each in corpus()]
    with pytest.raises(ParamsError, match="and this corpus has none"):
        planned(wordless)
    assert not planned(wordless, prompt=replace(PROMPT, user="which?")).wordless
    with pytest.raises(
        ManifestError, match=r"of 12 validation and test utterances .* none has audio"
    ):
        planned([replace(each, audio=None) for each in corpus()])
