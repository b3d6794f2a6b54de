"""What a corpus adapter yields and promises; shared by the plug-ins of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol


@dataclass(frozen=True)
class Item:
    """One utterance as an adapter finds it, before hashing, probing and splitting.

    Fields are those of `Utterance` and `Label`. `label=None` says why in `reject`. `split` is the
    corpus's own (train, valid, test), where it has one. `session` groups speakers where the
    protocol leaves sessions out.
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


class Corpus(Protocol):
    """An adapter: constructed with the corpus root and the keywords of its params entry."""

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
