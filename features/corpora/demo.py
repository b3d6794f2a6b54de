"""Demo corpus: synthetic emotional speech, so that everything runs without a data set.

**It shows that the software works, not how well emotion is recognised.** Emotions are exaggerated
and uniform, speakers are variants of one synthesiser, and the mixture of cues is made up.

Contents: 416 utterances of 1.05-2.8 s (11 minutes), 8 emotions of 52 each, 18 speakers (9 female,
9 male) in two-voice dialogues of 6-10 turns. Training: 10 speakers, 240 utterances; validation: 4
and 64; test: 4 and 112. No speaker, dialogue or sentence is in two splits. The emotion of a turn
does not depend on the turns before it. `other` is boredom.

Synthesis (`_demo/`): our own sentences (`texts`) are distributed by a `plan`; espeak-ng speaks them
without expression (`espeak`); WORLD changes pitch, range, contour, rate, tilt, formants, breath and
tremor (`prosody`) by speaker and emotion (`voices`); a laugh, sob, sigh or gasp precedes, follows
or replaces the words (`sounds`). This takes 40 s of processor time in all.

Ceilings: of each emotion but neutral, 40 % of the utterances (to the nearest count) show it in
words and voice, 30 % in the words alone, 30 % in the voice alone; the words or the voice of the
rest, and of `neutral` always, are neutral. Without a cue the best guess is `neutral`, so that with
n utterances of an emotion, c of them with a cue in the words, the highest possible accuracy is

    text alone:  (7 c + n) / 8 n = 311/416 (train 59/80, valid 25/32, test 3/4)
    audio alone: the same, with cues in the voice
    both:        1, as every emotion but neutral has a cue somewhere

(tests/features/corpora/test_demo.py counts them.) Accuracy and UAR are equal, as emotions are
equally frequent. The audio ceiling holds for voice and sounds: a speech recogniser that understands
the words is not bound by it, but phrases differ between splits, so that 240 utterances teach little
of that.

Measured on the test split by logistic regression on means over time, its strength chosen on the
validation split (seed 0): text (MiniLM) 0.67, audio (Whisper tiny.en, layers 2 and 4) 0.71, both
0.91. Utterances with a cue are nearly all right; most errors are in `neutral`.

Votes and attributes: with `targets` of the corpus entry, five of twelve simulated raters vote for a
class and rate arousal, valence and dominance from 1 to 7, by the rule of `_raters.py`. Words carry
valence, the voice arousal and dominance. Audio, labels and their order stay the same.
Krippendorff's alpha (seed 0): arousal 0.73, valence 0.76, dominance 0.68, votes 0.63. CCC over all
utterances of what the rule itself expects given what can be seen, and its correlation r:

    text alone:  arousal 0.64 (r 0.69), valence 0.92 (0.92), dominance 0.65 (0.69)
    audio alone: arousal 0.95 (r 0.95), valence 0.71 (0.74), dominance 0.94 (0.94)
    both:        arousal 0.97 (r 0.97), valence 0.97 (0.97), dominance 0.96 (0.96)

The expectation has the least squared error. r is the ceiling of CCC itself: a model that learns by
1 - CCC may stretch its guesses as far as that (tests/features/corpora/test_raters.py counts them).

Licence: texts and audio are part of this repository (MIT). espeak-ng is GPL-3.0-or-later; it is a
program that is run, and its output is not covered. WORLD is BSD-3-Clause.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, ClassVar, Literal

from features.corpora._demo.plan import CLASSES, LEAST, Planned, plan
from features.corpora._raters import ATTRIBUTES, HIGH, LOW, means, panel, rate, votes
from features.corpus.adapter import CorpusFactory, Item, Source, Target
from features.corpus.ratings import Rating
from features.errors import ManifestError, ParamsError
from features.files.reading import file_sha256
from features.files.records import read_json, write_json
from features.ranges import Interval, Seed

FOLDER = "audio"
Utterances = Annotated[int, Interval(ge=LEAST, le=100_000)]
Labels = Literal["eight_class", "six_class", "four_class"]
FOUR = ("sad", "neutral", "angry", "happy")
SUBSETS: Mapping[Labels, tuple[str, ...]] = {
    "eight_class": CLASSES,
    "six_class": (*FOUR, "surprised", "fearful"),
    "four_class": FOUR,
}
STAMP = "made_from.json"


class Demo:
    """Adapter of the demo corpus, which makes its audio unless it exists.

    Args:
        root: Folder for `audio/`.
        utterances: Number of utterances, a multiple of the 8 emotions.
        seed: Random seed of the plan, the voices and the raters; another one gives another corpus.
        targets: What to yield besides classes: votes and attributes of simulated raters.
        labels: Emotions that are classes; utterances with others are left out.

    Raises:
        ParamsError: If `utterances` is not such a multiple, or there are raters, who choose among
            all emotions, and not all are classes.
    """

    source: ClassVar[Source] = Source(
        title="heronry demo: synthetic emotional speech",
        licence="MIT (speech by espeak-ng, a GPL-3.0-or-later program that is run)",
        citation="heronry, features/corpora/demo.py",
        obtain="It is generated by the prepare stage; there is nothing to download.",
    )
    public_licence: ClassVar[str] = "mit"
    language: ClassVar[str] = "en"
    generated: ClassVar[bool] = True
    disclaimer: ClassVar[str] = (
        "This corpus is generated: it shows that the machine works, not how well emotion is "
        "recognised."
    )
    offers: ClassVar[tuple[Target, ...]] = ("classes", "votes", "attributes")
    scales: ClassVar[Mapping[str, tuple[float, float]]] = dict.fromkeys(ATTRIBUTES, (LOW, HIGH))

    def __init__(
        self,
        root: Path,
        *,
        utterances: Utterances = 416,
        seed: Seed = 0,
        targets: Sequence[Target] = ("classes",),
        labels: Labels = "eight_class",
    ) -> None:
        if utterances < LEAST or utterances % len(CLASSES):
            raise ParamsError(
                f"corpus demo: utterances is {utterances!r}; expected a multiple of {len(CLASSES)} "
                f"(the emotions) of at least {LEAST}, such as 416"
            )
        self.root, self.utterances, self.seed = root, utterances, seed
        self.targets, self.labels = tuple(targets), labels
        self.classes = tuple(name for name in CLASSES if name in SUBSETS[labels])
        if self.classes != CLASSES and set(targets) != {"classes"}:
            raise ParamsError(
                f"corpus demo: labels is {labels!r} and targets is {list(targets)}; expected "
                "labels 'eight_class', since its raters choose among all emotions"
            )

    def items(self) -> Iterator[Item]:
        """The utterances in corpus order: the dialogues of train, valid and test.

        Raises:
            HeronryError: If the audio has to be made and espeak-ng is missing or fails.
        """
        planned = plan(self.utterances, self.seed)
        self._ensure(planned)
        yield from self._items(planned)

    def preview(self) -> Iterator[Item]:
        """All utterances without audio, which is not made."""
        for item in self._items(plan(self.utterances, self.seed)):
            yield replace(item, audio=None)

    def ratings(self) -> Iterator[Rating]:
        """What each simulated rater says, in corpus order; nothing where classes alone are asked.

        A rating holds a vote and values, whichever of the two is asked for.
        """
        if set(self.targets) - {"classes"}:
            raters = panel(self.seed)
            for p in plan(self.utterances, self.seed):
                yield from rate(p, raters, self.seed)

    def _items(self, planned: Sequence[Planned]) -> Iterator[Item]:
        raters = panel(self.seed)
        for p in planned:
            item = _item(p)
            if p.label not in self.classes:
                why = f"label {p.label} is not among the classes of {self.labels}"
                yield replace(item, label=None, excluded=why)
                continue
            rated = rate(p, raters, self.seed) if set(self.targets) - {"classes"} else []
            if "votes" in self.targets:
                item = replace(item, votes=votes(rated), votes_outside=0.0)
            if "attributes" in self.targets:
                item = replace(item, values=means(rated))
            yield item

    def _ensure(self, planned: Sequence[Planned]) -> None:
        """Make the audio, unless the same plan and the same code made all existing files."""
        folder = self.root / FOLDER
        made_from, files = _stamp(folder)
        recipe = _recipe(planned, self.seed)
        if made_from == recipe and all(_is(folder / name, sha) for name, sha in files.items()):
            return
        folder.mkdir(parents=True, exist_ok=True)
        # Without a stamp, an interrupted corpus is never taken for a complete one.
        (folder / STAMP).unlink(missing_ok=True)
        # Imported here: scipy's signal processing is slow to load and not needed by `check`.
        from features.corpora._demo.synthesis import synthesise

        synthesise(planned, self.seed, folder)
        names = [f"{p.id}.flac" for p in planned]
        for stale in set(files) - set(names):
            (folder / stale).unlink(missing_ok=True)
        shas = {name: file_sha256(folder / name) for name in names}
        write_json(folder / STAMP, {"recipe": recipe, "files": shas})


def _item(p: Planned) -> Item:
    return Item(
        id=p.id,
        label=p.label,
        speaker=p.speaker.id,
        audio=f"{FOLDER}/{p.id}.flac",
        text=p.text,
        dialogue=p.dialogue,
        turn=p.turn,
        gender=p.speaker.gender,
        split=p.split,
    )


def _stamp(folder: Path) -> tuple[str | None, dict[str, str]]:
    """Recipe of the existing audio and SHA-256 by file; None and empty without a stamp."""
    try:
        stamp = read_json(folder / STAMP)
    except ManifestError:
        return None, {}
    return stamp.get("recipe"), dict(stamp.get("files", {}))


def _recipe(planned: Sequence[Planned], seed: int) -> str:
    """Hash of the plan, the seed and the code of the synthesis; not of the libraries."""
    digest = hashlib.sha256(repr((seed, list(planned))).encode())
    for module in sorted(Path(__file__).with_name("_demo").glob("*.py")):
        digest.update(module.read_bytes())
    return digest.hexdigest()


def _is(path: Path, sha256: str) -> bool:
    return path.is_file() and file_sha256(path) == sha256


build: CorpusFactory = Demo
