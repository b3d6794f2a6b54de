"""What a corpus adapter yields and promises; shared by the plug-ins of this folder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from features.arguments import Record

UNPACKED = "heronry_audio"  # folder below a corpus root for audio that tables hold in cells


@dataclass(frozen=True)
class Item:
    """One utterance as an adapter finds it, before hashing, probing and splitting.

    Fields are those of `Utterance` and `Label`. `label=None` says why in `reject`. That
    counts against `allow_rejected` as something broken or missing, unless `left_out` says that
    nothing is wrong (no label published, a label outside the label map, a tie of votes). `split`
    is the corpus's own (train, valid, test), where it has one. `session` groups speakers where the
    protocol leaves sessions out. `asr` is what a speech recogniser heard, where the corpus says so.
    `notices` say what was mended or ignored of an utterance that is used, a line each.
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
    reject: str | None = None
    left_out: bool = False
    asr: str | None = None
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """What a corpus is: for the card and the report.

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
    """Counts of the complete corpus, to hold against what lies below the root.

    Attributes:
        utterances: Labelled utterances, with the label map that is in use.
        by: Counts of labelled utterances by a field of `Item` (label, session, split, speaker,
            gender), then by its value.
        source: Who published them.
        notes: Why a complete copy may differ all the same; for people.
    """

    utterances: int
    by: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    source: str = ""
    notes: tuple[str, ...] = ()


class Corpus(Protocol):
    """An adapter: constructed with the corpus root and the keywords of its params entry.

    What not every corpus has is an optional attribute or property:

    - `published: Published | None`: counts of the complete corpus under the chosen label map.
    - `variant: str`: name of the label map, where there are several.
    - `label_map: Mapping[str, str | None]`: the corpus's own labels to classes; None: left out.
    - `scripted: bool`: all speakers read the same few sentences, so that the words carry no label.
    - `disclaimer: str`: what every report on this corpus must say.
    - `preview() -> Iterator[Item]`: the same as `items`, for `check`, where that makes or unpacks
      audio: nothing is written, and `audio` is None of what would have to be.
    - `warnings: Sequence[str]`: what was ignored of its tables as a whole, once items were read.
    - `tables() -> Iterable[Path]`: the files that it reads besides audio. Their hashes decide
      whether `prepare` must run again.
    """

    source: ClassVar[Source]
    generated: ClassVar[bool]
    """Whether the adapter makes its own audio below the root it is given."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the model's outputs."""
        ...

    def items(self) -> Iterator[Item]:
        """All utterances in corpus order, rejected ones included with their reason."""
        ...


class CorpusFactory(Protocol):
    """The type of `build` in each module of this folder: `build(root: Path, **keywords)`."""

    def __call__(self, *args: Any, **options: Any) -> Corpus:
        """Make the adapter of the corpus below a root."""
        ...
