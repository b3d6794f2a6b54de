"""Clips of the worst errors as data URLs, so that the page stays one file.

A clip is cut out of its recording, mixed to one channel at 16 kHz and encoded as MP3: a third of
the size of FLAC, and the same bytes every time, which Ogg's random stream number prevents. It is
for listening, not for computing. Nothing is read outside the corpus's folder.
"""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePosixPath

from features.audio.read import SAMPLE_RATE_HZ, read_audio
from features.corpus.manifest import Label
from features.corpus.places import member_roots, members_in
from features.corpus.utterance import Utterance
from features.errors import HeronryError, ManifestError, ParamsError
from features.files.records import read_rows
from features.settings.locations import corpus_root
from pipeline.evaluation.run_folder import RunFolder
from pipeline.report.records import Report

BUDGET_BYTES = 3_000_000
"""Most bytes that all data URLs of a page take."""
VARIABLE = "HERONRY_REPORT_AUDIO"
"""`no` leaves sound out, for a corpus whose licence does not let it be passed on."""
_PREFIX = "data:audio/mpeg;base64,"


@dataclass(frozen=True)
class Clip:
    """A data URL, or the reason why there is none; the other is empty."""

    address: str = ""
    silent: str = ""


class Clips:
    """Encodes clips until a page's budget is spent.

    Args:
        root: Folder of the corpus, or those of a union's members; None where it is not available.
        hashes: SHA-256 of the audio by id. A file that was replaced is not played: the model was
            wrong about another recording.
        budget_bytes: Most bytes of all data URLs together.
    """

    def __init__(
        self,
        root: Path | Mapping[str, Path] | None,
        *,
        hashes: Mapping[str, str] | None = None,
        budget_bytes: int = BUDGET_BYTES,
    ) -> None:
        self._root, self._budget, self._left = root, budget_bytes, budget_bytes
        self._hashes = hashes or {}

    def find(self, label: Label) -> Clip:
        """The clip of an utterance."""
        if label.audio is None:
            return Clip(silent="the corpus has no audio of it")
        if self._root is None:
            return Clip(silent="the audio is not on the machine that wrote this page")
        path = PurePosixPath(label.audio)
        if path.is_absolute() or ".." in path.parts:
            return Clip(silent="its path leaves the corpus's folder")
        try:
            content = _encoded(self._place(path), label, self._hashes.get(label.id))
        except ManifestError:
            return Clip(
                silent="its audio is missing, or is not the recording that the model was tested on"
            )
        except HeronryError:
            return Clip(silent="its audio cannot be read on the machine that wrote this page")
        address = _PREFIX + base64.b64encode(content).decode()
        if len(address) > self._left:
            return Clip(silent=f"the clips of a page hold {self._budget / 1e6:g} MB at most")
        self._left -= len(address)
        return Clip(address)

    def _place(self, path: PurePosixPath) -> Path:
        assert self._root is not None
        if isinstance(self._root, Path):
            return self._root / path
        member, _, below = str(path).partition("/")
        if member not in self._root:
            raise ManifestError(f"{path} begins with no member of the union")
        return self._root[member] / below


def clips_of(report: Report) -> list[Clip]:
    """A clip for each error that is shown."""
    if os.environ.get(VARIABLE, "").strip().lower() in ("no", "0", "false"):
        return [Clip(silent="left out")] * len(report.errors.shown)
    hashes = _audio_hashes(report.run, {error.utterance.id for error in report.errors.shown})
    clips = Clips(audio_root(report.run), hashes=hashes)
    return [clips.find(error.utterance) for error in report.errors.shown]


def audio_root(run: RunFolder) -> Path | Mapping[str, Path] | None:
    """Folder that the audio paths of a corpus start from, of a union by member; None: not here."""
    beside = _utterances(run)
    if (beside / "audio").is_dir():
        return beside
    try:
        members = members_in(beside)
        return member_roots(members, beside) if members else corpus_root(run.corpus)
    except (ManifestError, ParamsError):
        return None


def _audio_hashes(run: RunFolder, ids: Collection[str]) -> dict[str, str]:
    """SHA-256 of the audio of utterances, where their manifest is available."""
    manifest = _utterances(run) / "manifest.jsonl"
    if not manifest.is_file():
        return {}
    rows = (row for row in read_rows(manifest, Utterance) if row.id in ids)
    try:
        return {row.id: row.sha256 for row in islice(rows, len(ids)) if row.sha256}
    except ManifestError:
        return {}  # the report is not about the manifest; prepare reports what is wrong with it


def _utterances(run: RunFolder) -> Path:
    """data/<corpus>/utterances of the project that holds runs/<regime>/<corpus>/<fusion>."""
    parents = run.path.absolute().parents  # [2] is runs/, [3] the project
    return parents[min(3, len(parents) - 1)] / "data" / run.corpus / "utterances"


def _encoded(path: Path, label: Label, sha256: str | None) -> bytes:
    import soundfile  # loads libsndfile, which only a page with sound needs

    samples = read_audio(path, id=label.id, start=label.start, stop=label.stop, sha256=sha256)
    file = io.BytesIO()
    soundfile.write(
        file, samples.clip(-1, 1), SAMPLE_RATE_HZ, format="MP3", subtype="MPEG_LAYER_III"
    )
    return file.getvalue()
