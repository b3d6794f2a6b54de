"""Which items of a corpus can be used, and why the others cannot."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from features.audio.silence import judge_span
from features.corpus.adapter import Item
from features.corpus.inspection import MISSING, FileFacts, inspect_files
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
    """Items sorted by what can be done with them, in corpus order.

    Attributes:
        utterances: What can be extracted, labelled or not.
        labelled: What can be trained and tested on.
        rejected: Reasons by id.
        causes: The same without the name of the audio file, which differs from item to item.
        faults: Ids of those rejected for something broken or missing, such as their audio.
        facts: Of the audio files of `utterances`, by path.
        notices: What was mended, cut or odd of items that are used, by id.
        warnings: What concerns the corpus as a whole.
    """

    utterances: list[Utterance] = field(default_factory=list)
    labelled: list[Item] = field(default_factory=list)
    rejected: dict[str, str] = field(default_factory=dict)
    causes: dict[str, str] = field(default_factory=dict)
    faults: list[str] = field(default_factory=list)
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
        return {id: "; ".join(told) for id, told in self.notices.items()}

    @property
    def spans(self) -> dict[str, tuple[str, float, float]]:
        """Content of the audio file and the span of it, by id: equal for equal recordings."""
        return {
            u.id: (u.sha256, u.start or 0.0, round(u.seconds or 0.0, 3))
            for u in self.utterances
            if u.sha256 is not None
        }

    def use(self, utterance: Utterance, file: FileFacts | str | None) -> None:
        """Take an utterance that can be extracted, with the facts of its audio."""
        self.utterances.append(utterance)
        if utterance.audio is not None and isinstance(file, FileFacts):
            self.facts[utterance.audio] = file

    def reject(self, item: Item, reason: str, *, fault: bool, hint: str = "") -> None:
        """List an item with its reason.

        Args:
            item: What is left out.
            reason: Why.
            fault: Whether that is something broken or missing.
            hint: What to do about it, where that differs from item to item.
        """
        self.rejected[item.id] = reason + hint
        self.causes[item.id] = reason.removeprefix(f"{item.audio}: ")
        if fault:
            self.faults.append(item.id)

    def notice(self, id: str, notice: str) -> None:
        """List what is to be known of an item that is used."""
        self.notices.setdefault(id, []).append(notice)


def look_at(
    items: Sequence[Item], root: Path, *, memory: Path | None, follow_links: bool = False
) -> Survey:
    """Hash and probe what the items name, and sort the items by what can be done with them.

    Args:
        items: All items of a corpus.
        root: Folder that their audio paths count from.
        memory: File of remembered hashes; None remembers nothing.
        follow_links: Whether audio is read where links lead out of that folder.
    """
    paths = RootPaths(root)
    named = list(dict.fromkeys(item.audio for item in items if item.audio is not None))
    files = path_faults(named, paths, follow_links=follow_links)
    files |= inspect_files(root, [name for name in named if name not in files], memory=memory)
    return sort_items(items, files, paths)


def path_faults(
    names: Iterable[str], paths: RootPaths, *, follow_links: bool
) -> dict[str, FileFacts | str]:
    """The reasons, by path, of those that are not looked at."""
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


def sort_items(
    items: Sequence[Item], files: Mapping[str, FileFacts | str], paths: RootPaths
) -> Survey:
    """Sort items by what can be done with them.

    Args:
        items: All items of a corpus.
        files: What is known of the audio files that they name, or why they cannot be used.
        paths: Of the corpus root, to name the file that a path may mean.
    """
    survey = Survey()
    for item in items:
        reason = item.reject
        if item.audio is not None or item.text is not None:
            try:
                survey.use(_utterance(item, files), files.get(item.audio or ""))
            except UtteranceError as error:
                name = item.audio or ""
                hint = paths.hint(name) if files.get(name) == MISSING else ""
                survey.reject(item, error.reason, fault=True, hint=hint)
                continue
        elif reason is None:
            survey.reject(item, "it has neither audio nor text", fault=True)
            continue
        left_out = item.left_out
        if reason is None and item.label is None:
            reason, left_out = "it has no label", True
        if reason is None:
            survey.labelled.append(item)
            for notice in (*item.notices, *_heard(survey.utterances[-1], survey.facts)):
                survey.notice(item.id, notice)
        else:
            survey.reject(item, reason, fault=not left_out)
    return survey


def _utterance(item: Item, files: Mapping[str, FileFacts | str]) -> Utterance:
    if item.audio is None:
        return Utterance(item.id, text=item.text, start=item.start, stop=item.stop, asr=item.asr)
    file = files[item.audio]
    if isinstance(file, str):
        raise UtteranceError(item.id, f"{item.audio}: {file}")
    begin, end = item.start or 0.0, file.seconds if item.stop is None else item.stop
    if begin >= min(end, file.seconds) or end > file.seconds + OVERHANG_SECONDS:
        reason = f"{item.audio}: the span {begin} to {end} s is not within {file.seconds:.3f} s"
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


def _heard(utterance: Utterance, facts: Mapping[str, FileFacts]) -> list[str]:
    """What its audio file tells of an utterance that is used."""
    if utterance.audio is None:
        return []
    file, begin = facts[utterance.audio], utterance.start or 0.0
    _, notice = judge_span(file.stretches, begin, begin + (utterance.seconds or 0.0))
    return [*file.notices, *([notice] if notice else [])]
