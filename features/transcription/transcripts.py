"""Reads and writes recognised words: `data/<corpus>/transcripts`, and those beside a text cache.

`data/<corpus>/transcripts` is the output of the stage `transcribe@<corpus>`:

    transcripts.jsonl  an object a line, in the order of the corpus: `id`, and `words`, which is
                       empty where none were heard
    transcripts.json   format, version, and the provenance of the words
    rejected.csv       utterances that could not be transcribed, with a reason each

The first two are missing where `transcribe` of params.yaml does not name the corpus. A cache of an
entry of `asr_backbones` holds the words that its features are of as `words.jsonl`, with the same
lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from features.backbone.entry import BackboneEntry
from features.corpus.manifest import Manifest
from features.corpus.utterance import Utterance, check_id
from features.errors import ManifestError
from features.files.reasons import REJECTED, write_reasons
from features.files.records import check_text, check_unique, read_rows, write_json, write_rows

ROWS, HEAD = "transcripts.jsonl", "transcripts.json"
WORDS = "words.jsonl"
FORMAT = {"format": "heronry-transcripts", "version": 1}


@dataclass(frozen=True)
class Transcript:
    """Recognised words of an utterance; empty where none were heard."""

    id: str
    words: str

    def __post_init__(self) -> None:
        check_id(self.id)
        if not isinstance(self.words, str):
            raise ManifestError(f"utterance {self.id!r}: words is {self.words!r}; expected text")
        check_text(f"utterance {self.id!r}: words", self.words)


def write_transcripts(
    folder: Path,
    rows: Iterable[Transcript],
    rejected: Mapping[str, str],
    provenance: Mapping[str, Any],
) -> None:
    """Write the files of a corpus's transcripts into its empty folder."""
    write_rows(folder / ROWS, rows)
    write_json(folder / HEAD, {**FORMAT, "provenance": provenance})
    write_reasons(folder / REJECTED, rejected)


def read_transcripts(folder: Path) -> dict[str, str]:
    """Recognised words by id; none where the corpus is not transcribed.

    Raises:
        ManifestError: If the folder is missing, or a line is malformed.
    """
    if not (folder / REJECTED).exists():
        raise ManifestError(
            f"{folder} is missing, or not finished; expected the output of `transcribe`: run "
            f"`dvc repro stages/transcribe/dvc.yaml:transcribe@{folder.parent.name}`"
        )
    return read_words(folder / ROWS)


def read_words(path: Path) -> dict[str, str]:
    """Words by id of a file of transcripts; none if it does not exist.

    Raises:
        ManifestError: If a line is malformed, or an id occurs twice.
    """
    if not path.exists():
        return {}
    rows = list(read_rows(path, Transcript))
    check_unique((row.id for row in rows), str(path))
    return {row.id: row.words for row in rows}


def as_read(manifest: Manifest, entry: BackboneEntry, transcripts: Path | None) -> Manifest:
    """The utterances as a backbone of recognised words reads them, in their field `asr`.

    Args:
        manifest: Utterances; words of their own column `asr` take precedence over transcripts.
        entry: Backbone that reads recognised words. With `where: missing` it reads the reference
            where there is one. For any other backbone the manifest is returned as it is.
        transcripts: `data/<corpus>/transcripts`; None if the entry does not read it.

    Raises:
        ManifestError: If the transcripts are missing or malformed.
    """
    if entry.reads != "asr":
        return manifest
    found = {} if transcripts is None else read_transcripts(transcripts)
    references = entry.keywords()["where"] == "missing"
    if not found and not references:
        return manifest

    return manifest.hearing(_Hearing(found, own=True, references=references))


def write_words(cache: Path, manifest: Manifest) -> None:
    """Write `words.jsonl` into a cache: the words of the utterances that it was made of."""
    rows = (Transcript(u.id, u.asr) for u in manifest if u.asr is not None)
    write_rows(cache / WORDS, rows)


def with_words(manifest: Manifest, words: Mapping[str, str]) -> Manifest:
    """The utterances with the words of a cache in their field `asr`."""
    return manifest.hearing(_Hearing(words))


@dataclass(frozen=True)
class _Hearing:
    """Words of an utterance; unlike a closure, it can be sent to other processes.

    Attributes:
        found: Words by id.
        own: Whether an utterance's own `asr` takes precedence.
        references: Whether its reference does, before both.
    """

    found: Mapping[str, str]
    own: bool = False
    references: bool = False

    def __call__(self, utterance: Utterance) -> str | None:
        if self.references and utterance.text is not None:
            return utterance.text
        if self.own and utterance.asr is not None:
            return utterance.asr
        return self.found.get(utterance.id)
