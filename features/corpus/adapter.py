"""Interface of a corpus adapter: the utterances it yields and what it says about its corpus."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol

from features.arguments import Record
from features.corpus.frozen import check_outside, frozen, share_texts

UNPACKED = "heronry_audio"  # folder below a corpus root for audio extracted from table cells
Target = Literal["classes", "votes", "attributes"]
"""What a corpus may offer to be learnt."""
MAPPINGS = ("votes", "secondary", "values")  # fields of `Item` that are frozen
# Fields whose texts many utterances share.
REPEATED = ("label", "speaker", "audio", "dialogue", "gender", "sentence", "session")


@dataclass(frozen=True)
class Item:
    """One utterance as an adapter finds it, before hashing, decoding and splitting.

    Attributes:
        id: Unique in the corpus.
        label: Class; None for an utterance that has none.
        speaker: Unique in the corpus; empty where unknown.
        audio: Path of the audio file below the corpus root, with forward slashes.
        text: Transcript.
        start: Seconds into the file at which the utterance begins; None for its beginning.
        stop: Seconds into the file at which it ends; None for its end.
        dialogue: Conversation, unique in the corpus.
        turn: Position in the dialogue, from 0.
        gender: Gender of the speaker.
        sentence: Identity of a scripted sentence.
        split: The corpus's own split (train, valid, test, unused), for the protocol `official`;
            `unlabelled` of an utterance that is predicted and never scored, under any protocol.
        session: Recording session, for the protocol `leave_one_session_out`.
        fault: Reason not to use it, if something is broken or missing. Counts against
            `allow_rejected`.
        excluded: Reason to leave it out although nothing is wrong with it: no published label, a
            label outside the label map, a tie of votes.
        asr: Words from a speech recogniser, beside the reference in `text`.
        notices: Corrections, and what was ignored, in an utterance that is used; a line each.
        votes: Number of raters by class that they chose, in the order of the classes; classes that
            nobody chose are absent.
        votes_outside: Number of raters whose choice is none of the classes.
        secondary: Number of raters by class that they named beside their choice.
        values: Number on the corpus's own scale by attribute; unknown ones are absent.
        train_only: Whether it is left out of validation and test, such as an utterance without
            agreement of its raters under `no_agreement: train`.
    """

    id: str
    label: str | None
    speaker: str
    audio: str | None = None
    text: str | None = None
    start: float | None = None
    stop: float | None = None
    dialogue: str | None = None
    turn: int | None = None
    gender: str | None = None
    sentence: str | None = None
    split: str | None = None
    session: str | None = None
    fault: str | None = None
    excluded: str | None = None
    asr: str | None = None
    notices: tuple[str, ...] = ()
    votes: Mapping[str, float] | None = field(default=None, hash=False)
    votes_outside: float | None = None
    secondary: Mapping[str, float] | None = field(default=None, hash=False)
    values: Mapping[str, float] | None = field(default=None, hash=False)
    train_only: bool = False

    def __post_init__(self) -> None:
        for name in MAPPINGS:
            given = getattr(self, name)
            if given is not None:
                held = frozen(f"{name} of {self.id!r}", given, counts=name != "values")
                object.__setattr__(self, name, held)
        check_outside(f"votes_outside of {self.id!r}", self.votes_outside)
        share_texts(self, (*REPEATED, "split"))


@dataclass(frozen=True)
class Source:
    """Description of a corpus for its card and the report.

    Attributes:
        title: Full name.
        licence: Terms of the data.
        citation: Paper or DOI.
        obtain: How to get the data, in one sentence.
    """

    title: str
    licence: str
    citation: str
    obtain: str


@dataclass(frozen=True)
class Published(Record):
    """Published counts of the complete corpus, to compare with the files below the root.

    Attributes:
        utterances: Labelled utterances under the label map in use.
        by: Counts of labelled utterances by a field of `Item` (label, session, split, speaker,
            gender), then by its value.
        source: Publication of the counts.
        notes: Known reasons why a complete copy may differ.
    """

    utterances: int
    by: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    source: str = ""
    notes: tuple[str, ...] = ()


class Corpus(Protocol):
    """A corpus adapter, constructed with the corpus root and the keywords of its params entry.

    Optional attributes or properties:

    - `generated: bool`: whether it makes its own audio below the root it is given, so that the user
      sets no root.
    - `published: Published | None`: counts of the complete corpus under the chosen label map.
    - `variant: str`: name of the label map, where there are several.
    - `label_map: Mapping[str, str | None]`: the corpus's own labels to classes; None: excluded.
    - `scripted: bool`: all speakers read the same few sentences, so that the words carry no label.
    - `disclaimer: str`: what every report on this corpus must say.
    - `public_licence: str`: licence, as the model hub names it, under which what is made of the
      corpus may be passed on to anybody; without it nothing may (`features.exchange.licences`).
    - `language: str`: code of the language that is spoken.
    - `preview() -> Iterator[Item]`: the same as `items` for `check`, where `items` makes or unpacks
      audio. It writes nothing; `audio` is None where the file would have to be made.
    - `warnings: Sequence[str]`: what was ignored in its tables as a whole, once items were read.
    - `offers: tuple[Target, ...]`: what it can yield, of the class; without it classes alone.
      Where it is more, the constructor takes the keyword `targets`, which of them are asked for,
      by default `("classes",)`, and the adapter reads no table that these do not need.
    - `scales: Mapping[str, tuple[float, float]]`: lowest and highest value by attribute.
    - `policies: Mapping[str, str]`: what is done with utterances without agreement and the like.
    - `ratings() -> Iterable[Rating]`: what each rater said, once items were read.
    - `tables() -> Iterable[Path]`: the files read besides audio. Their hashes decide whether
      `prepare` must run again.
    """

    source: ClassVar[Source]

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the model's outputs."""
        ...

    def items(self) -> Iterator[Item]:
        """All utterances in corpus order, unusable ones included with the reason."""
        ...


class CorpusFactory(Protocol):
    """Type of `build` in each module of `features.corpora`: `build(root: Path, **keywords)`."""

    def __call__(self, *args: Any, **options: Any) -> Corpus:
        """Make the adapter of the corpus below a root."""
        ...
