"""Utterances and labels: what a corpus is, as two JSONL tables joined by id.

`data/<corpus>/utterances/manifest.jsonl` is what extraction reads,
`data/<corpus>/labels/labels.jsonl` what training reads. They are apart so that relabelling a
corpus, or splitting it in another way, leaves every cached feature valid. Layout: docs/design.md.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from features.arguments import problems
from features.errors import ManifestError
from features.manifest_rows import ManifestRows
from features.records import check_unique, read_json, read_rows, write_json, write_rows
from features.utterance import Utterance as Utterance
from features.utterance import check_id, check_time, path_under

SPLITS = ("train", "valid", "test", "unused")
UTTERANCES_FORMAT = "heronry-utterances"
UTTERANCES_VERSION = 1
_AGAIN = "Expected what `prepare` wrote: run `dvc repro` to prepare the corpus again."
_TEXTS = ("label", "speaker", "dialogue", "gender", "sentence", "session", "text", "audio", "asr")


@dataclass(frozen=True)
class Label:
    """What is to be predicted for an utterance, and the groups that must not cross a split.

    Attributes:
        id: The utterance.
        label: Class name.
        speaker: Speaker, unique in the corpus.
        dialogue: Conversation or recording, unique in the corpus; None where there is none.
        turn: Position in the dialogue, from 0.
        gender: As the corpus states it; None where unknown.
        sentence: Identity of a scripted sentence; None for spontaneous speech.
        session: Recording session, where the corpus has them.
        seconds: Duration of the utterance; None without audio.
        text: Transcript, for the report; None where there is none.
        audio: Path of the audio file below the corpus root, for the report; None without audio.
        start: Seconds into that file at which the utterance begins; None for its beginning.
        stop: Seconds into that file at which it ends; None for its end.
        splits: One of train, valid, test, unused per fold of the protocol.
        asr: What a speech recogniser heard, as in `Utterance`.
    """

    id: str
    label: str
    speaker: str
    dialogue: str | None = None
    turn: int | None = None
    gender: str | None = None
    sentence: str | None = None
    session: str | None = None
    seconds: float | None = None
    text: str | None = None
    audio: str | None = None
    start: float | None = None
    stop: float | None = None
    splits: tuple[str, ...] = ()
    asr: str | None = None

    def __post_init__(self) -> None:
        check_id(self.id)
        for name in _TEXTS:
            value = getattr(self, name)
            required = name in ("label", "speaker")
            if not (isinstance(value, str) and (value or not required)) and (
                value is not None or required
            ):
                raise ManifestError(f"utterance {self.id!r}: {name} is {value!r}; expected text")
        for name in ("start", "stop", "seconds"):
            check_time(self.id, name, getattr(self, name))
        if self.turn is not None and type(self.turn) is not int:
            raise ManifestError(
                f"utterance {self.id!r}: turn is {self.turn!r}; expected an integer"
            )
        wrong = sorted(set(self.splits) - set(SPLITS))
        if wrong:
            raise ManifestError(
                f"utterance {self.id!r}: split {wrong[0]!r}; expected one of {SPLITS}"
            )


@dataclass(frozen=True)
class Manifest(Sequence[Utterance]):
    """The utterances of a corpus, in order, and how its shards are cut.

    Attributes:
        corpus: Name in params.yaml.
        utterances: In corpus order; new ones are appended, so that old shards stay as they are. A
            tuple, or what parses the rows of a file as they are asked for.
        kind: Plug-in of the corpus.
        generated: Whether the audio lies beside the manifest rather than under a user's root.
        shard_seconds: A shard of an audio backbone closes once it holds this many seconds.
        shard_characters: A shard of a text backbone closes once it holds this many characters.
    """

    corpus: str
    utterances: Sequence[Utterance]
    kind: str = "manifest"
    generated: bool = False
    shard_seconds: float = 3600.0
    shard_characters: int = 500_000

    def __post_init__(self) -> None:
        rows = self.utterances
        doubtful: Iterable[Utterance] = rows
        if isinstance(rows, ManifestRows):  # whose rows were checked when the file was read
            doubtful = rows.suspects()
        else:
            for each in rows:
                each.check_hashed()
        check_unique((u.id for u in doubtful), f"corpus {self.corpus!r}")
        for name in ("shard_seconds", "shard_characters"):
            if not getattr(self, name) > 0:
                raise ManifestError(f"{name} is {getattr(self, name)}; expected a number above 0")

    def __len__(self) -> int:
        return len(self.utterances)

    def __iter__(self) -> Iterator[Utterance]:
        return iter(self.utterances)

    def __getitem__(self, index: Any) -> Any:
        return self.utterances[index]

    def located(self, root: Path) -> Self:
        """The same utterances with absolute audio paths under `root`.

        Raises:
            ManifestError: If a path leaves the root.
        """
        rows = self.utterances
        if isinstance(rows, ManifestRows):
            return dataclasses.replace(self, utterances=rows.located(root))
        found = (dataclasses.replace(each, audio=path_under(root, each)) for each in rows)
        return dataclasses.replace(self, utterances=tuple(found))

    def write(self, folder: Path) -> None:
        """Write `corpus.json` and `manifest.jsonl` into `folder`."""
        head = {"format": UTTERANCES_FORMAT, "version": UTTERANCES_VERSION}
        head |= {
            f.name: getattr(self, f.name)
            for f in dataclasses.fields(self)
            if f.name != "utterances"
        }
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "corpus.json", head)
        write_rows(folder / "manifest.jsonl", self.utterances)

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Validate what `write` wrote; the rows stay in the file (features/manifest_rows.py).

        Raises:
            ManifestError: If a file is missing or malformed, naming the line.
        """
        path = folder / "corpus.json"
        head = read_json(path)
        found = (head.pop("format", None), head.pop("version", None))
        if found != (UTTERANCES_FORMAT, UTTERANCES_VERSION):
            raise ManifestError(
                f"{path} says format and version {found}; expected "
                f"{(UTTERANCES_FORMAT, UTTERANCES_VERSION)}: run `dvc repro` to prepare it again"
            )
        wrong = problems(cls, head, "", skip=["utterances"])
        if wrong:
            raise ManifestError("\n".join(f"{path}: {line}" for line in wrong) + f"\n{_AGAIN}")
        rows = ManifestRows.scan(folder / "manifest.jsonl")
        return cls(utterances=rows, **head)


def read_labels(folder: Path) -> list[Label]:
    """Read `labels.jsonl` of `data/<corpus>/labels`, validated."""
    labels = list(read_rows(folder / "labels.jsonl", Label))
    check_unique((label.id for label in labels), str(folder / "labels.jsonl"))
    return labels
