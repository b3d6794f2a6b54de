"""The demo corpus: its plan, its voices and sounds without espeak-ng, and all of it with it."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from fractions import Fraction
from itertools import combinations, pairwise
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from features.corpora._demo import espeak
from features.corpora._demo.plan import CLASSES, Planned, plan
from features.corpora._demo.prosody import shape
from features.corpora._demo.sounds import SAMPLE_RATE_HZ, SOUNDS, Floats, Throat
from features.corpora._demo.texts import HUMS, bank, expand, spoken
from features.corpora._demo.voices import SPEAKERS, STYLES, Style
from features.corpora.demo import Demo
from features.corpus.adapter import Item
from features.corpus.entry import corpus_problems
from features.errors import HeronryError, ParamsError
from tests.conftest import tone
from tests.support.corpora.usable_audio import inspect_usable
from tests.support.paths import ROOT

SIZES = st.integers(6, 150).map(lambda each: 8 * each)
needs_espeak = pytest.mark.skipif(
    importlib.util.find_spec("espeakng_loader") is None,
    reason="package espeakng-loader is missing: install requirements/embedded.txt",
)


def split(planned: Sequence[Planned], name: str) -> list[Planned]:
    return [p for p in planned if p.split == name]


def sentences(emotion: str) -> set[str]:
    return {text for pattern in bank(emotion) for text in expand(pattern)}


@given(utterances=SIZES, seed=st.integers(0, 99))
def test_no_speaker_dialogue_or_sentence_is_in_two_splits(utterances: int, seed: int) -> None:
    planned = plan(utterances, seed)
    assert len(planned) == len({p.id for p in planned}) == utterances
    for one, other in combinations(("train", "valid", "test"), 2):
        for key in ("speaker", "dialogue", "text"):
            held = [{getattr(p, key) for p in split(planned, name)} for name in (one, other)]
            assert held[0], (one, key)
            assert not held[0] & held[1], (one, other, key)


@given(utterances=SIZES, seed=st.integers(0, 99))
def test_emotions_speakers_and_cues_are_balanced_in_each_split(utterances: int, seed: int) -> None:
    for name in ("train", "valid", "test"):
        planned = split(plan(utterances, seed), name)
        labels = Counter(p.label for p in planned)
        assert set(labels) == set(CLASSES)
        assert len(set(labels.values())) == 1
        speakers = Counter(p.speaker.id for p in planned)
        assert set(speakers) == {s.id for s in SPEAKERS if s.split == name}
        assert max(speakers.values()) - min(speakers.values()) <= 1
        pairs = Counter((p.label, p.speaker.id) for p in planned)
        counts = [pairs[label, speaker] for label in CLASSES for speaker in speakers]
        assert max(counts) - min(counts) <= 1
        one_cue = round(labels["sad"] * Fraction(3, 10))
        for label in set(CLASSES) - {"neutral"}:
            cues = Counter((p.text_cue, p.audio_cue) for p in planned if p.label == label)
            assert cues[True, False] == cues[False, True] == one_cue
            assert cues[False, False] == 0


@given(utterances=SIZES, seed=st.integers(0, 99))
def test_two_voices_take_turns(utterances: int, seed: int) -> None:
    dialogues: dict[str, list[Planned]] = {}
    for p in plan(utterances, seed):
        dialogues.setdefault(p.dialogue, []).append(p)
    for turns in dialogues.values():
        assert [p.turn for p in turns] == list(range(len(turns)))
        assert len({p.speaker for p in turns}) == 2
        assert all(a.speaker != b.speaker for a, b in pairwise(turns))


def test_default_plan_is_what_its_description_says() -> None:
    planned = plan(416, 0)
    sizes = {name: len(split(planned, name)) for name in ("train", "valid", "test")}
    assert sizes == {"train": 240, "valid": 64, "test": 112}
    assert set(Counter(p.dialogue for p in planned).values()) == {6, 8, 10}
    assert Counter(s.split for s in SPEAKERS) == {"train": 10, "valid": 4, "test": 4}
    for name in sizes:
        genders = Counter(s.gender for s in SPEAKERS if s.split == name)
        assert genders["female"] == genders["male"]
    assert {p.place for p in planned} == {None, "before", "after", "alone"}
    assert {p.sound for p in planned if p.sound} == set(SOUNDS)
    text = {None: (311, 416), "train": (59, 80), "valid": (25, 32), "test": (3, 4)}
    for part, (right, whole) in text.items():
        found = ceilings(planned if part is None else split(planned, part))
        assert found == (Fraction(right, whole), Fraction(right, whole), Fraction(1))


def ceilings(planned: Sequence[Planned]) -> tuple[Fraction, Fraction, Fraction]:
    """Highest accuracy from the words, from the voice, and from both.

    Every emotion is tried as the answer to every thing that can be seen; words by their bank. Hums
    are seen apart from neutral sentences, which does not help. Words that the voice carries are no
    cue of the audio.
    """
    owner = {text: label for label in CLASSES for text in sentences(label)}
    words = [owner.get(p.text, "hum") for p in planned]
    voice = [p.label if p.audio_cue else "neutral" for p in planned]

    def best(seen: Sequence[object]) -> Fraction:
        pairs = list(zip(seen, planned, strict=True))
        right = 0
        for value in set(seen):
            tries = [sum(s == value and p.label == label for s, p in pairs) for label in CLASSES]
            right += max(tries)
        return Fraction(right, len(planned))

    return best(words), best(voice), best(list(zip(words, voice, strict=True)))


def test_a_cue_in_the_words_is_a_sentence_of_its_bank_and_no_other() -> None:
    for one, other in combinations(CLASSES, 2):
        assert not sentences(one) & sentences(other)
    for p in plan(416, 0):
        assert p.text in (sentences(p.label) if p.text_cue else sentences("neutral") | set(HUMS))
        assert (p.text in HUMS) <= (p.place == "alone" or p.label == "neutral")


def test_a_sound_is_part_of_the_cue_of_its_emotion() -> None:
    for p in plan(416, 0):
        assert (p.sound is None) == (p.place is None)
        if p.sound:
            assert p.audio_cue
            assert p.sound == STYLES[p.label].sound
    owners = [style.sound for style in STYLES.values() if style.sound]
    assert len(owners) == len(set(owners))


def test_marks_are_not_spoken() -> None:
    assert spoken("What, you won?") == spoken("What you won!") == "What you won."


@pytest.mark.parametrize("sound", SOUNDS)
@pytest.mark.parametrize("alone", [False, True])
def test_sounds_last_about_as_long_as_a_word_or_two(sound: str, alone: bool) -> None:
    throat = Throat(180.0, 1.0, np.random.default_rng(0))
    wave = SOUNDS[sound](throat, alone=alone)
    assert 0.25 <= len(wave) / SAMPLE_RATE_HZ <= 1.3
    assert np.isfinite(wave).all()
    assert wave.std() > 0
    assert len(wave) < len(SOUNDS[sound](throat, alone=True)) or alone


def shaped(**style: float) -> Floats:
    """A 150 Hz tone of 1 s, said by the first speaker in a style."""
    return shape(tone(150.0, 1.0), SPEAKERS[0], Style(**style), np.random.default_rng(0))  # type: ignore[arg-type]


def pitch_hz(wave: Floats) -> float:
    """The strongest lag of the autocorrelation in the middle, as a frequency."""
    middle = wave[len(wave) // 4 : 3 * len(wave) // 4]
    curve = np.correlate(middle, middle, "full")[len(middle) - 1 :]
    first = SAMPLE_RATE_HZ // 600
    return SAMPLE_RATE_HZ / (first + int(np.argmax(curve[first : SAMPLE_RATE_HZ // 60])))


def highs(wave: Floats) -> float:
    """Energy above 500 Hz in relation to that below."""
    power = np.abs(np.fft.rfft(wave)) ** 2
    above = np.fft.rfftfreq(len(wave), 1 / SAMPLE_RATE_HZ) > 500
    return float(power[above].sum() / power[~above].sum())


def test_styles_do_what_they_say() -> None:
    speaker, plain = SPEAKERS[0], shaped()
    assert pitch_hz(plain) == pytest.approx(speaker.pitch_hz, rel=0.03)
    assert pitch_hz(shaped(pitch=7.0)) == pytest.approx(speaker.pitch_hz * 2 ** (7 / 12), rel=0.03)
    assert len(shaped(rate=1.5)) == pytest.approx(len(plain) / 1.5, rel=0.02)
    assert highs(shaped(tilt_db=-5.0)) < 0.7 * highs(plain)
    assert highs(shaped(tilt_db=5.0)) > 1.4 * highs(plain)


def test_a_style_of_strength_zero_is_neutral_except_breath_and_sound() -> None:
    for style in STYLES.values():
        weak = asdict(style.scaled(0.0))
        assert weak["contour"] == (0.0,) * len(style.contour)
        kept = ("contour", "breath", "sound", "tremor_hz")
        assert {k: v for k, v in weak.items() if k not in kept} == {
            k: v for k, v in asdict(Style()).items() if k not in kept
        }
        assert style.scaled(1.0) == style


@pytest.mark.parametrize("utterances", [0, -8, 40, 50])
def test_only_multiples_of_the_number_of_emotions(tmp_path: Path, utterances: int) -> None:
    with pytest.raises(ParamsError, match=rf"utterances is {utterances}; expected a multiple"):
        Demo(tmp_path, utterances=utterances)


@pytest.mark.parametrize(
    ("name", "value"),
    [("utterances", v) for v in (40, 416.0, True, "416")]
    + [("seed", v) for v in (-1, 1.5, None, False)],
)
def test_settings_out_of_range_are_refused(name: str, value: object) -> None:
    (problem,) = corpus_problems("demo", {name: value})
    assert problem.startswith(f"corpora.demo.{name}: given {value!r}; expected an integer from")


def test_a_missing_synthesiser_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)
    with pytest.raises(HeronryError, match=r"pip install espeakng-loader==0\.2\.4"):
        list(Demo(tmp_path, utterances=48).items())


@pytest.fixture
def spoken_plans(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seed of each time that audio was made; files of a few bytes stand for audio."""
    seeds: list[int] = []

    def pretend(planned: Sequence[Planned], seed: int, folder: Path) -> None:
        seeds.append(seed)
        for p in planned:
            (folder / f"{p.id}.flac").write_bytes(f"{seed} {p.text}".encode())

    monkeypatch.setattr("features.corpora._demo.synthesis.synthesise", pretend)
    return seeds


def test_audio_is_made_once(tmp_path: Path, spoken_plans: list[int]) -> None:
    first = list(Demo(tmp_path, utterances=48).items())
    assert first == list(Demo(tmp_path, utterances=48).items())
    assert spoken_plans == [0]


def test_audio_that_is_not_as_it_was_made_is_made_again(
    tmp_path: Path, spoken_plans: list[int]
) -> None:
    items = list(Demo(tmp_path, utterances=48).items())
    (tmp_path / str(items[0].audio)).write_bytes(b"cut off")
    list(Demo(tmp_path, utterances=48).items())
    (tmp_path / str(items[1].audio)).unlink()
    list(Demo(tmp_path, utterances=48).items())
    (tmp_path / "audio" / "made_from.json").write_text("{")
    list(Demo(tmp_path, utterances=48).items())
    assert spoken_plans == [0, 0, 0, 0]


def test_another_plan_leaves_nothing_of_the_old_one(
    tmp_path: Path, spoken_plans: list[int]
) -> None:
    list(Demo(tmp_path, utterances=96).items())
    (tmp_path / "audio" / "mine.flac").touch()
    items = list(Demo(tmp_path, utterances=48, seed=1).items())
    assert spoken_plans == [0, 1]
    left = {f"audio/{path.name}" for path in (tmp_path / "audio").glob("*.flac")}
    assert left == {item.audio for item in items} | {"audio/mine.flac"}


def test_items_carry_the_plan(tmp_path: Path, spoken_plans: list[int]) -> None:
    items = list(Demo(tmp_path).items())
    assert spoken_plans == [0]
    assert Demo.generated
    assert Demo(tmp_path).classes == (
        *("sad", "neutral", "disgusted", "surprised"),
        *("angry", "happy", "other", "fearful"),
    )
    p = plan(416, 0)[3]
    assert items[3] == Item(
        id="d000_t03",
        label=p.label,
        speaker=p.speaker.id,
        audio="audio/d000_t03.flac",
        text=p.text,
        dialogue="d000",
        turn=3,
        gender=p.speaker.gender,
        split="train",
    )


MAKE = """
import json, sys
from dataclasses import asdict
from pathlib import Path
from features.corpora.demo import Demo
items = list(Demo(Path(sys.argv[1]), utterances=48, seed=3).items())
print(json.dumps([asdict(item) for item in items]))
"""


def made_elsewhere(root: Path, hash_seed: str) -> tuple[object, dict[str, bytes]]:
    """Items and files of a small corpus made by a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", MAKE, str(root)],
        env=os.environ | {"PYTHONHASHSEED": hash_seed},
        cwd=ROOT,
        capture_output=True,
        check=True,
        timeout=300,
    )
    files = {path.name: path.read_bytes() for path in (root / "audio").iterdir()}
    return json.loads(done.stdout), files


@pytest.mark.slow
@needs_espeak
def test_two_processes_make_the_same_bytes(tmp_path: Path) -> None:
    items, files = made_elsewhere(tmp_path / "a", "1")
    again, same = made_elsewhere(tmp_path / "b", "2")
    assert items == again
    assert len(files) == 48 + 1
    assert files == same


@pytest.mark.slow
@needs_espeak
def test_an_unknown_voice_is_named() -> None:
    with pytest.raises(HeronryError, match="no voice 'no-such-voice'"):
        espeak.speak([("no-such-voice", "Hello.")])


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[Item]]:
    """The whole corpus, made once for the tests below: half a minute."""
    root = tmp_path_factory.mktemp("demo")
    return root, list(Demo(root).items())


@pytest.mark.slow
@needs_espeak
def test_files_are_what_the_rest_expects(corpus: tuple[Path, list[Item]]) -> None:
    root, items = corpus
    assert len(items) == len({item.audio for item in items}) == 416
    seconds = []
    for item in items:
        path = root / str(item.audio)
        info = soundfile.info(path)
        assert (info.format, info.subtype, info.channels) == ("FLAC", "PCM_16", 1)
        assert info.samplerate == 16_000
        wave, _ = soundfile.read(path)
        assert np.abs(wave).max() < 0.9, "near full scale: clipped or about to be"
        assert np.abs(wave).max() > 0.01, item.id
        seconds.append(len(wave) / 16_000)
        assert inspect_usable(path).seconds == pytest.approx(seconds[-1])
    assert min(seconds) >= 1.0
    assert max(seconds) <= 3.0
    assert 1.5 <= np.mean(seconds) <= 1.75


@pytest.mark.slow
@needs_espeak
def test_voices_separate_emotions_within_their_ceiling(corpus: tuple[Path, list[Item]]) -> None:
    root, items = corpus
    rows = np.stack([statistics(root / str(item.audio)) for item in items])
    labels = np.array([CLASSES.index(str(item.label)) for item in items])
    train, test = (np.array([item.split == name for item in items]) for name in ("train", "test"))
    model = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=2000))
    model.fit(rows[train], labels[train])
    right = model.predict(rows[test]) == labels[test]
    told = np.array([p.audio_cue for p in plan(416, 0) if p.split == "test"])
    assert right[told].mean() > 0.7, "chance is 1/8"
    assert right[~told].mean() < 0.5, "a voice without a cue says nothing, and most are not neutral"


@pytest.mark.slow
@needs_espeak
def test_voices_tell_arousal_better_than_valence(corpus: tuple[Path, list[Item]]) -> None:
    root, items = corpus
    rows = np.stack([statistics(root / str(item.audio)) for item in items])
    rated = Demo(root, targets=("attributes",)).preview()
    values = np.array([list((item.values or {}).values()) for item in rated])
    train, test = (np.array([item.split == name for item in items]) for name in ("train", "test"))
    model = make_pipeline(StandardScaler(), Ridge(10.0)).fit(rows[train], values[train])
    found, truth = model.predict(rows[test]).T, values[test].T
    arousal, valence, dominance = (
        2 * np.cov(x, y, ddof=0)[0, 1] / (x.var() + y.var() + (x.mean() - y.mean()) ** 2)
        for x, y in zip(found, truth, strict=True)
    )
    assert min(arousal, dominance) > valence + 0.2


def statistics(path: Path) -> Floats:
    """Mean and spread over time of 24 bands, and of their change: `[72]`."""
    wave, _ = soundfile.read(path)
    frames = np.lib.stride_tricks.sliding_window_view(wave, 512)[::160] * np.hanning(512)
    edges = np.unique(np.geomspace(2, 256, 25).round().astype(int))
    bands = np.add.reduceat(np.abs(np.fft.rfft(frames)) ** 2, edges[:-1], axis=1)
    log = np.log(bands + 1e-7)
    return np.concatenate([log.mean(0), log.std(0), np.abs(np.diff(log, axis=0)).mean(0)])
