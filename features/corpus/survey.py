"""Sort the items of a corpus into usable and unusable ones, with the reasons."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from features.audio.silence import judge_span
from features.corpus.adapter import Corpus, Item, Target
from features.corpus.entry import CorpusEntry
from features.corpus.inspection import MISSING, FileFacts, inspect_files, list_files
from features.corpus.targets import CLASSES_ALONE, lacks_targets
from features.corpus.utterance import Utterance
from features.errors import ManifestError, UtteranceError
from features.files.records import check_text
from features.files.root_paths import RootPaths

# A transcript's last stop often lies a little after the end of the recording.
OVERHANG_SECONDS = 0.5
OUTSIDE = (
    "a link leads out of the corpus root; expected audio below it: copy it there, or set "
    "follow_links: true in the entry of the corpus"
)


@dataclass
class Survey:
    """Items of a corpus by what can be done with them, in corpus order.

    Attributes:
        utterances: Utterances that features can be extracted from, labelled or not.
        labelled: Items that can be trained and tested on.
        rejected: Reasons by id of all other items.
        causes: The same reasons without the name of the audio file, to be counted by cause.
        faulty: Ids of the rejected items with something broken or missing, such as their audio.
        facts: Facts about the audio files of `utterances`, by path.
        notices: Corrections, cuts and oddities of items that are used, by id.
        warnings: Oddities of the corpus as a whole.
    """

    utterances: list[Utterance] = field(default_factory=list)
    labelled: list[Item] = field(default_factory=list)
    rejected: dict[str, str] = field(default_factory=dict)
    causes: dict[str, str] = field(default_factory=dict)
    faulty: list[str] = field(default_factory=list)
    facts: dict[str, FileFacts] = field(default_factory=dict)
    notices: dict[str, list[str]] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def contents(self) -> dict[str, str]:
        """SHA-256 of the audio files, by path."""
        return {u.audio: u.sha256 for u in self.utterances if u.audio and u.sha256}

    @property
    def seconds(self) -> dict[str, float]:
        """Duration of the utterances that have audio, by id."""
        return {u.id: u.seconds for u in self.utterances if u.seconds is not None}

    @property
    def noticed(self) -> dict[str, str]:
        """The notices of each item as one text, by id."""
        return {id: "; ".join(notices) for id, notices in self.notices.items()}

    @property
    def spans(self) -> dict[str, tuple[str, float, float]]:
        """SHA-256 of the audio file, start and duration, by id: equal for equal recordings."""
        return {
            u.id: (u.sha256, u.start or 0.0, round(u.seconds or 0.0, 3))
            for u in self.utterances
            if u.sha256 is not None
        }

    def reject(self, item: Item, reason: str, *, fault: bool, hint: str = "") -> None:
        """Record that an item cannot be trained and tested on.

        Args:
            item: The item.
            reason: Reason, which ends up in rejected.csv.
            fault: Whether something is broken or missing.
            hint: What to do about this one item, not counted as part of the cause.
        """
        self.rejected[item.id] = reason + hint
        self.causes[item.id] = reason.removeprefix(f"{item.audio}: ")
        if fault:
            self.faulty.append(item.id)

    def notice(self, id: str, notice: str) -> None:
        """Record an oddity of an item that is used."""
        self.notices.setdefault(id, []).append(notice)


@dataclass(frozen=True)
class Found:
    """A corpus as it was found below its root.

    Attributes:
        entry: Its entry.
        corpus: Its adapter, after it yielded the items.
        root: Folder that their audio paths are relative to; of a union, of no use.
        total: Number of all items.
        survey: What can be done with them.
        splits: For each labelled item one split per fold; None: for the entry's protocol to make.
    """

    entry: CorpusEntry
    corpus: Corpus
    root: Path
    total: int
    survey: Survey
    splits: Sequence[tuple[str, ...]] | None = None


def take_survey(
    items: Sequence[Item],
    root: Path,
    *,
    memory: Path | None = None,
    follow_links: bool = False,
    open_audio: bool = True,
    targets: Sequence[Target] = CLASSES_ALONE,
) -> Survey:
    """Hash and decode the audio of all items, and sort the items by whether they can be used.

    Args:
        items: All items of a corpus.
        root: Folder that their audio paths are relative to.
        memory: File of remembered hashes; None remembers nothing.
        follow_links: Whether to read audio through links that lead out of that folder.
        open_audio: False only checks that the files exist: durations, damage and equal recordings
            under two names stay unknown.
        targets: What there is to learn of an item; one without any of these cannot be used.
    """
    paths = RootPaths(root)
    named = list(dict.fromkeys(item.audio for item in items if item.audio is not None))
    files = _path_faults(named, paths, follow_links=follow_links)
    sound = [name for name in named if name not in files]
    files |= inspect_files(root, sound, memory=memory) if open_audio else list_files(root, sound)
    survey = Survey()
    for item in items:
        _sort(item, files, paths, survey, targets)
    return survey


def _path_faults(
    names: Iterable[str], paths: RootPaths, *, follow_links: bool
) -> dict[str, FileFacts | str]:
    """Reasons, by path, why files are not opened at all."""
    found: dict[str, FileFacts | str] = {}
    for name in names:
        try:
            check_text("its path", name)
        except ManifestError as error:
            found[name] = str(error)
            continue
        if not follow_links and paths.leads_to(name):
            found[name] = OUTSIDE
    return found


def _sort(
    item: Item,
    files: Mapping[str, FileFacts | str],
    paths: RootPaths,
    survey: Survey,
    targets: Sequence[Target],
) -> None:
    """Add one item to a survey.

    An unlabelled item with readable audio or text is an utterance as well: its features can be
    extracted, and relabelling the corpus leaves them valid.
    """
    reason = item.fault or item.excluded
    facts = None if item.audio is None else files[item.audio]
    if item.audio is not None or item.text is not None:
        try:
            survey.utterances.append(_utterance(item, facts))
        except UtteranceError as error:
            hint = paths.hint(item.audio or "") if facts == MISSING else ""
            survey.reject(item, error.reason, fault=True, hint=hint)
            return
        if item.audio is not None and isinstance(facts, FileFacts):
            survey.facts[item.audio] = facts
    elif reason is None:
        survey.reject(item, "it has neither audio nor text", fault=True)
        return
    reason = reason or lacks_targets(item, targets)
    if reason is not None:
        survey.reject(item, reason, fault=item.fault is not None)
        return
    survey.labelled.append(item)
    for notice in (*item.notices, *_audio_notices(survey.utterances[-1], facts)):
        survey.notice(item.id, notice)


def _utterance(item: Item, file: FileFacts | str | None) -> Utterance:
    if item.audio is None or file is None:
        return Utterance(item.id, text=item.text, start=item.start, stop=item.stop, asr=item.asr)
    if isinstance(file, str):
        raise UtteranceError(item.id, f"{item.audio}: {file}")
    begin, end = item.start or 0.0, file.seconds if item.stop is None else item.stop
    if begin >= min(end, file.seconds) or end > file.seconds + OVERHANG_SECONDS:
        reason = f"{item.audio}: the span {begin} to {end} s is not within {file.seconds:.3f} s"
        # A whole number that fits into the file once it is divided by 1000.
        if 100 <= end <= 1000 * file.seconds and float(end).is_integer():
            reason += "; expected seconds: are these milliseconds?"
        raise UtteranceError(item.id, reason)
    fault, _ = judge_span(file.stretches, begin, min(end, file.seconds))
    if fault:
        raise UtteranceError(item.id, f"{item.audio}: {fault}")
    return Utterance(
        id=item.id,
        audio=item.audio,
        sha256=file.sha256,
        text=item.text,
        start=item.start,
        stop=item.stop,
        seconds=min(end, file.seconds) - begin,
        bytes=file.bytes,
        asr=item.asr,
    )


def _audio_notices(utterance: Utterance, file: FileFacts | str | None) -> list[str]:
    """Oddities of the audio that an utterance uses."""
    if utterance.audio is None or not isinstance(file, FileFacts):
        return []
    begin = utterance.start or 0.0
    _, notice = judge_span(file.stretches, begin, begin + (utterance.seconds or 0.0))
    return [*file.notices, *([notice] if notice else [])]
