"""What `prepare` will refuse or warn of, found without opening, making or unpacking any audio.

The same steps as in `features.corpus.prepare`, on items whose files are only looked for. So
durations, damage and equal recordings under two names stay unknown.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from features.corpus.adapter import Corpus
from features.corpus.entry import PACKAGE, CorpusEntry
from features.corpus.inspection import MISSING, FileFacts
from features.corpus.label_checks import label_lines, split_lines
from features.corpus.leaks import find_leaks, gate
from features.corpus.prepare import item_faults
from features.corpus.protocols import assign, only_fold
from features.corpus.split_counts import count_classes
from features.corpus.survey import Survey, path_faults, sort_items
from features.errors import HeronryError
from features.files.root_paths import RootPaths
from features.settings.plugins import load

ENDLESS_SECONDS = 1e9  # of a file that was not opened
QUOTED = 5  # rejected utterances that a problem quotes


@dataclass(frozen=True)
class Rehearsal:
    """What `prepare` would say.

    Attributes:
        classes: In the order of the model's outputs; none where they could not be read.
        problems: Why it would refuse the corpus.
        warnings: What it would tell of it.
    """

    classes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()


def rehearse(entry: CorpusEntry, root: Path) -> Rehearsal:
    """What `prepare` would say of a corpus as it lies below its root now.

    Args:
        entry: Its entry in params.yaml.
        root: Its root; of a generated corpus any folder, which is left alone.
    """
    try:
        corpus: Corpus = load(PACKAGE, entry.kind)(root, **entry.options)
        items = list(getattr(corpus, "preview", corpus.items)())
    except HeronryError as error:
        return Rehearsal(problems=(str(error),))
    problems = item_faults(entry.name, entry, corpus, items, root)
    if not items:
        return Rehearsal(problems=tuple(problems))
    paths = RootPaths(root)
    named = list(dict.fromkeys(item.audio for item in items if item.audio is not None))
    files = path_faults(named, paths, follow_links=entry.follow_links)
    files |= look_for(root, [name for name in named if name not in files])
    survey = sort_items(items, files, paths)
    survey.warnings += getattr(corpus, "warnings", ())
    if len(survey.faults) > entry.allow_rejected or not survey.labelled:
        problems.append(_unusable(entry.name, survey, len(items)))
    try:
        if survey.labelled:
            _split(entry, corpus, survey)
    except HeronryError as error:
        problems.append(str(error))
    return Rehearsal(tuple(corpus.classes), tuple(problems), tuple(survey.warnings))


def _split(entry: CorpusEntry, corpus: Corpus, survey: Survey) -> None:
    """Make the splits, and say in the survey what is odd about them; raise if they leak."""
    items = survey.labelled
    splits = assign(items, protocol=entry.protocol, folds=entry.folds, seed=entry.split_seed)
    splits = only_fold(splits, entry.fold)
    counts = count_classes(items, splits, corpus.classes)
    survey.warnings += split_lines(items, entry.protocol)
    survey.warnings += label_lines(items, counts, survey.spans)
    gate(find_leaks(items, splits, survey.contents), entry.allow_leak, corpus=entry.name)


def look_for(root: Path, names: Iterable[str]) -> dict[str, FileFacts | str]:
    """Which files are there: with their path for their content, or with the reason.

    Each folder is listed once, since to ask for each file takes long on network disks.
    """
    listed: dict[str, frozenset[str]] = {}
    found: dict[str, FileFacts | str] = {}
    for name in names:
        place = PurePosixPath(name)
        folder = str(place.parent)
        if folder not in listed:
            listed[folder] = _listing(root / folder)
        found[name] = _unopened(name) if place.name in listed[folder] else MISSING
    return found


def _listing(folder: Path) -> frozenset[str]:
    try:
        return frozenset(path.name for path in folder.iterdir())
    except OSError:
        return frozenset()  # no such folder, or a closed one: nothing of it can be read


def _unopened(name: str) -> FileFacts:
    """Facts under which every span lies within the file, and no other file is equal to it."""
    return FileFacts(
        path=name,
        bytes=0,
        inode=0,
        modified_ns=0,
        changed_ns=0,
        sha256=name,
        seconds=ENDLESS_SECONDS,
        sample_rate_hz=0,
        channels=0,
    )


def _unusable(name: str, survey: Survey, total: int) -> str:
    worst = survey.faults if survey.labelled else list(survey.rejected)
    listed = "; ".join(f"{id}: {survey.rejected[id]}" for id in worst[:QUOTED])
    return (
        f"corpus {name!r}: {len(worst)} of {total} utterances cannot be used, such as {listed}: "
        f"correct the files or the root, or bear it by corpora.{name}.allow_rejected"
    )
