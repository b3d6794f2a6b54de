"""`prepare`: a corpus as its adapter finds it, to `data/<corpus>/utterances` and `labels`.

`utterances` holds every item whose audio and text can be read, labelled or not, so that relabelling
leaves it, and with it every cache, as it is. `labels` holds those with a label, their splits, the
corpus card and the list of what was rejected and why. Layout: docs/design.md.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from features.corpus.adapter import Corpus, Item
from features.corpus.card import make_card
from features.corpus.entry import PACKAGE as PACKAGE
from features.corpus.entry import CorpusEntry as CorpusEntry
from features.corpus.entry import corpus_entry as corpus_entry
from features.corpus.entry import corpus_problems as corpus_problems
from features.corpus.label_checks import contradictions, label_faults
from features.corpus.labels_folder import CARD, LABELS
from features.corpus.leaks import find_leaks, gate
from features.corpus.manifest import Label, Manifest
from features.corpus.protocols import assign, only_fold
from features.corpus.sources import tables_sha256
from features.corpus.survey import Survey, look_at
from features.errors import ManifestError
from features.files.reading import file_sha256
from features.files.reasons import NOTICED, REJECTED, write_reasons
from features.files.records import check_unique, write_json, write_rows
from features.files.writing import empty_folder
from features.settings.locations import corpus_root, hashes_file, root_variable
from features.settings.plugins import load

LISTED = 20  # rejected utterances that a message quotes


@dataclass(frozen=True)
class Prepared:
    """What `prepare` did.

    Attributes:
        card: Content of `card.json`.
        hours: Of audio in `utterances`.
        utterances: Number of rows there, labelled or not.
        rejected: Reasons by id.
        noticed: Notices by id, of utterances that are used.
    """

    card: Mapping[str, Any]
    hours: float
    utterances: int
    rejected: Mapping[str, str]
    noticed: Mapping[str, str]


def prepare(name: str, entry: CorpusEntry, out: Path) -> Prepared:
    """Write `out/utterances` and `out/labels` of a corpus.

    Args:
        name: The corpus: the key in params.yaml, from which its root is found.
        entry: Its entry.
        out: `data/<corpus>`; both folders are replaced.

    Raises:
        ParamsError: If the root is not set, missing or empty, or the protocol does not fit.
        ManifestError: If the corpus is empty, ids repeat, a label is not among the classes, or the
            splits leak. Also if more than `allow_rejected` utterances cannot be used: then
            everything has been written, and the others are ready for use.
    """
    factory = load(PACKAGE, entry.kind)
    generated = bool(getattr(factory, "generated", False))
    utterances, labels = out / "utterances", out / "labels"
    root = utterances if generated else corpus_root(name)
    for folder in (utterances, labels):
        # Never written over in place: DVC may have linked the files there to its own copies.
        empty_folder(folder)
    corpus: Corpus = factory(root, **entry.options)
    items = list(corpus.items())
    faults = item_faults(name, entry, corpus, items, root)
    if faults:
        raise ManifestError("\n".join(faults))
    memory = None if generated else hashes_file(name, root)
    survey = look_at(items, root, memory=memory, follow_links=generated or entry.follow_links)
    survey.warnings += getattr(corpus, "warnings", ())
    for same in contradictions(survey.labelled, survey.spans):
        for item in same:
            survey.notice(item.id, "the same recording (or turn) stands under another label too")
    write_reasons(labels / REJECTED, survey.rejected)
    write_reasons(labels / NOTICED, survey.noticed)
    if not survey.labelled:
        raise ManifestError(_verdict(name, survey, len(items), labels))
    Manifest(
        corpus=name,
        utterances=tuple(survey.utterances),
        kind=entry.kind,
        generated=generated,
        shard_seconds=entry.shard_seconds,
        shard_characters=entry.shard_characters,
    ).write(utterances)
    splits = assign(
        survey.labelled, protocol=entry.protocol, folds=entry.folds, seed=entry.split_seed
    )
    splits = only_fold(splits, entry.fold)
    leaks = find_leaks(survey.labelled, splits, survey.contents)
    gate(leaks, entry.allow_leak, corpus=name)
    card = make_card(name, entry, corpus, survey, splits, leaks)
    card["tables"] = {} if generated else tables_sha256(name, corpus, root)
    write_rows(labels / LABELS, _labels(survey, splits))
    card["labels_sha256"] = file_sha256(labels / LABELS)
    write_json(labels / CARD, card)
    if len(survey.faults) > entry.allow_rejected:
        raise ManifestError(_verdict(name, survey, len(items), labels))
    seconds = sum(utterance.seconds or 0.0 for utterance in survey.utterances)
    return Prepared(card, seconds / 3600, len(survey.utterances), survey.rejected, survey.noticed)


def item_faults(
    name: str, entry: CorpusEntry, corpus: Corpus, items: Sequence[Item], root: Path
) -> list[str]:
    """What is wrong with the items of a corpus as a whole, one line each; empty if nothing is.

    Args:
        name: The corpus.
        entry: Its entry.
        corpus: Its adapter, once it has yielded the items, since some learn their classes by that.
        items: All of them.
        root: Where they were looked for.
    """
    where, classes = f"corpus {name!r}", tuple(corpus.classes)
    if not items:
        return [
            f"{where} is empty: nothing of it was found in {root}; expected at least one "
            f"utterance: set {root_variable(name)} to the folder that holds it"
        ]
    faults = []
    try:
        check_unique((item.id for item in items), where)
    except ManifestError as error:
        faults.append(str(error))
    if len(classes) < 2 or len(set(classes)) < len(classes):
        faults.append(f"{where} has the classes {list(classes)}; expected two or more, each once")
    labels = Counter(item.label for item in items if item.label is not None)
    listed = bool(entry.options.get("classes"))
    faults += [f"{where}: {fault}" for fault in label_faults(labels, listed=listed)]
    outside = [item for item in items if item.label is not None and item.label not in classes]
    if outside:
        quoted = ", ".join(f"{item.id}: {item.label!r}" for item in outside[:5])
        faults.append(
            f"{where}: {len(outside)} labels are not among its classes, such as {quoted}; expected "
            f"one of {list(classes)}: correct them, or corpora.{name}.classes"
        )
    return faults


def _labels(survey: Survey, splits: Sequence[tuple[str, ...]]) -> Iterator[Label]:
    seconds = survey.seconds
    for item, row in zip(survey.labelled, splits, strict=True):
        yield Label(
            id=item.id,
            label=str(item.label),
            speaker=item.speaker,
            dialogue=item.dialogue,
            turn=item.turn,
            gender=item.gender,
            sentence=item.sentence,
            session=item.session,
            seconds=seconds.get(item.id),
            text=item.text,
            audio=item.audio,
            start=item.start,
            stop=item.stop,
            splits=row,
            asr=item.asr,
        )


def _verdict(name: str, survey: Survey, total: int, labels: Path) -> str:
    worst = (
        survey.faults if survey.labelled else [*dict.fromkeys([*survey.faults, *survey.rejected])]
    )
    listed = [f"{id}: {survey.rejected[id]}" for id in worst[:LISTED]]
    if len(worst) > LISTED:
        listed.append(f"and {len(worst) - LISTED} more")
    what = f"corpus {name!r}: {len(worst)} of {total} utterances cannot be used"
    remedy = f"Correct the files or {root_variable(name)}"
    if survey.labelled:
        remedy += f", or go on without them: corpora.{name}.allow_rejected: {len(survey.faults)}"
    return "\n  ".join([f"{what}; all are listed in {labels / REJECTED}:", *listed]) + (
        f"\n{remedy}"
    )
