"""Transcribes a corpus: the words of all its utterances, of which finished parts are kept.

The utterances are divided into parts by the manifest alone, and windows are only computed together
within a part, so that the words do not depend on what was finished before. Finished parts lie in
the work store, below the fingerprint of all that decides the words; an utterance is known there by
its audio, so that another label, text or order transcribes nothing again.
"""

from __future__ import annotations

import hashlib
import json
import multiprocessing
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass, field
from multiprocessing.queues import Queue
from pathlib import Path

from features.backbone.entry import fingerprint
from features.corpus.manifest import Manifest
from features.corpus.utterance import Utterance
from features.errors import ManifestError
from features.files.reasons import REJECTED, write_reasons
from features.files.records import read_rows, write_rows
from features.files.writing import empty_folder, remove_folder
from features.process.memory import DOES_NOT_FIT
from features.process.terminal import progress
from features.process.workers import WorkerPool
from features.transcription.recogniser import Recogniser, parts
from features.transcription.settings import Transcription
from features.transcription.transcripts import Transcript, write_transcripts
from features.weights.identity import left_open, pinned, report_left_open

STORE = "transcripts"  # folder of the work store
PARTS_A_DEVICE = 2  # queued for each device, so that none waits for work


@dataclass(frozen=True)
class Row:
    """What was found of a recording, known by its audio: words, or the reason for none."""

    content: str
    words: str | None = None
    reason: str | None = None


@dataclass
class Transcribed:
    """Result of a transcription.

    Attributes:
        words: Recognised words by id, in the order of the corpus.
        rejected: Reasons by id.
        computed: Utterances whose words were recognised now; the store had the others.
        seconds: Seconds of audio of these.
    """

    words: dict[str, str] = field(default_factory=dict)
    rejected: dict[str, str] = field(default_factory=dict)
    computed: int = 0
    seconds: float = 0.0


def skip(out: Path) -> None:
    """Write the folder of a corpus that is not transcribed."""
    empty_folder(out)
    write_reasons(out / REJECTED, {})  # DVC would warn about an empty folder each time


def transcribe(
    manifest: Manifest,
    settings: Transcription,
    out: Path,
    *,
    store: Path,
    devices: Sequence[str] = ("cpu",),
) -> Transcribed:
    """Recognise the words of a corpus, and write them to `out`.

    Args:
        manifest: Utterances with absolute audio paths.
        settings: Checkpoint, language and precision.
        out: `data/<corpus>/transcripts`; replaced.
        store: Root of the work store.
        devices: Devices that the network runs on; several divide the parts among them.

    Raises:
        HeronryError: If a file is missing or changed since `prepare`, the checkpoint is missing, or
            no utterance can be transcribed. Finished parts stay in the store, and `out` is removed.
    """
    empty_folder(out)
    try:
        recogniser = Recogniser(settings, devices[0])
        provenance = recogniser.provenance()
        if not pinned(settings.revision):
            found = str(provenance["revision"])
            report_left_open(left_open("transcribe.revision", settings.revision, found))
        done = _transcribed(manifest, recogniser, store / STORE / fingerprint(provenance), devices)
        if done.rejected and not done.words:
            reason = next(iter(done.rejected.values()))
            raise ManifestError(
                f"{out}: none of the {len(done.rejected)} utterances can be transcribed; the first "
                f"one: {reason}"
            )
        rows = (Transcript(id, words) for id, words in done.words.items())
        write_transcripts(out, rows, done.rejected, provenance)
    except BaseException:
        remove_folder(out)  # DVC does not remove outputs of a failed stage
        raise
    return done


def _transcribed(
    manifest: Manifest, recogniser: Recogniser, folder: Path, devices: Sequence[str]
) -> Transcribed:
    kept, done = _Kept(folder), Transcribed()
    rows: dict[str, Row] = {}
    heard = (utterance for utterance in manifest if utterance.audio is not None)
    work = []
    for part in parts(heard):
        contents = [content_of(utterance) for utterance in part]
        path = kept.path(contents)
        found = kept.read(path)
        rows |= found
        if found.keys() != set(contents):
            work.append((path, part))
    kept.reserve(path for path, _ in work)
    # Equal recordings are transcribed once, and those of earlier corpora not at all.
    todo = []
    for path, part in work:
        known = kept.rows(content_of(u) for u in part)
        rows |= known
        missing = {content_of(u): u for u in part if content_of(u) not in known}
        todo.append((path, tuple(missing.values()), tuple(known.values())))
    done.computed = sum(len(missing) for _, missing, _ in todo)
    done.seconds = sum(u.seconds or 0.0 for _, missing, _ in todo for u in missing)
    steps = _computed(recogniser, todo, devices)
    what = f"transcribe {manifest.corpus}"
    for found_now in progress(steps, total=len(todo), what=what, unit="part"):
        rows |= {row.content: row for row in found_now}
    for utterance in manifest:
        if utterance.audio is None:
            done.rejected[utterance.id] = "has no audio"
            continue
        row = rows[content_of(utterance)]
        if row.words is None:
            done.rejected[utterance.id] = row.reason or ""
        else:
            done.words[utterance.id] = row.words
    return done


_Part = tuple[Path, tuple[Utterance, ...], tuple[Row, ...]]  # file, what is missing, what is known


def content_of(utterance: Utterance) -> str:
    """Hash of an utterance's audio: file and span."""
    content = utterance.audio_content
    assert content is not None
    return content


class _Kept:
    """Finished parts of one checkpoint in the work store.

    Args:
        folder: Folder of the parts, a file each.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._reserved: set[Path] = set()
        self._others: dict[str, Row] | None = None

    def path(self, contents: Sequence[str]) -> Path:
        """File of the part of these recordings, in order."""
        name = hashlib.sha256(json.dumps(contents).encode()).hexdigest()
        return self.folder / f"{name}.jsonl"

    def read(self, path: Path) -> dict[str, Row]:
        """Rows of a part by content: none if it is not finished, or its file is damaged.

        Recordings that did not fit the memory are left out, so that they are tried again.
        """
        if not path.exists():
            return {}
        try:
            rows = list(read_rows(path, Row))
        except ManifestError:
            path.unlink()
            return {}
        return {row.content: row for row in rows if not (row.reason or "").startswith(DOES_NOT_FIT)}

    def reserve(self, paths: Iterable[Path]) -> None:
        """Exclude unfinished parts of a plan from `rows`.

        Words may depend on what is computed beside them, in rare ties: if parts took rows from
        others of their plan, they would depend on which were finished first.
        """
        self._reserved = set(paths)

    def rows(self, contents: Iterable[str]) -> dict[str, Row]:
        """Rows of finished parts that hold some of the recordings."""
        if self._others is None:
            files = (path for path in sorted(self.folder.glob("*.jsonl")))
            self._others = {}
            for path in files:
                if path not in self._reserved:
                    self._others |= self.read(path)
        others = self._others
        return {content: others[content] for content in contents if content in others}


def _computed(
    recogniser: Recogniser, todo: Sequence[_Part], devices: Sequence[str]
) -> Iterator[list[Row]]:
    """Finish parts in the store, yielding the rows that were missing of each."""
    if len(devices) < 2 or len(todo) < 2:
        yield from (_finish(recogniser, part) for part in todo)
        return
    names: Queue[str] = multiprocessing.get_context("spawn").Queue()
    for device in devices:
        names.put(device)
    left, running = iter(todo), set[Future[list[Row]]]()
    with WorkerPool(len(devices), _start, (recogniser.settings, names)) as pool:
        while True:
            for part in left:
                running.add(pool.submit(_finish_here, part))
                if len(running) >= len(devices) * PARTS_A_DEVICE:
                    break
            if not running:
                return
            finished, running = wait(running, return_when=FIRST_COMPLETED)
            yield from (future.result() for future in finished)


# Of a worker process, which loads weights once.
_recogniser: Recogniser | None = None


def _start(settings: Transcription, devices: Queue[str]) -> None:
    global _recogniser
    _recogniser = Recogniser(settings, devices.get())


def _finish_here(part: _Part) -> list[Row]:
    assert _recogniser is not None
    return _finish(_recogniser, part)


def _finish(recogniser: Recogniser, part: _Part) -> list[Row]:
    """Recognise the missing words of a part, and write its file."""
    path, missing, known = part
    heard = dict(recogniser.words(missing))
    rows = [_row(recogniser, utterance, heard) for utterance in missing]
    write_rows(path, [*known, *rows])
    return rows


def _row(recogniser: Recogniser, utterance: Utterance, heard: dict[str, str]) -> Row:
    content = content_of(utterance)
    if utterance.id in heard:
        return Row(content, words=heard[utterance.id])
    return Row(content, reason=recogniser.failed[utterance.id])
