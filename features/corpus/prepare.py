"""Prepare a corpus: from the items of its adapter to `data/<corpus>/utterances` and `labels`.

`utterances` holds every item whose audio and text can be read, labelled or not, so that relabelling
leaves it, and with it every cache, as it is. `labels` holds those with a target that the entry asks
for, their splits, the corpus card and the list of rejected items with reasons; `ratings` what each
rater said of these. Layout: docs/design.md.

`rehearse` runs the same steps without opening, making or unpacking any audio, for `check`.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from features.corpus.adapter import Corpus, Item
from features.corpus.card import make_card
from features.corpus.entry import CorpusEntry
from features.corpus.label_checks import contradictions, label_faults, label_lines, split_lines
from features.corpus.labels_folder import CARD, LABELS
from features.corpus.leaks import find_leaks, gate
from features.corpus.manifest import Label, Manifest
from features.corpus.places import root_of
from features.corpus.protocols import assign
from features.corpus.ratings import Rating, write_ratings
from features.corpus.sources import tables_sha256
from features.corpus.split_counts import count_classes
from features.corpus.survey import Found, Survey, take_survey
from features.corpus.targets import (
    chosen,
    classes_of,
    offered_line,
    row_faults,
    scales_of,
    split_faults,
)
from features.corpus.utterance import Member
from features.errors import HeronryError, ManifestError
from features.files.reading import file_sha256
from features.files.reasons import NOTICED, REJECTED, count_reasons, write_reasons
from features.files.records import check_unique, write_json, write_rows
from features.files.writing import empty_folder
from features.settings.locations import hashes_file, root_variable

LISTED = 20  # rejected utterances that a message quotes


@dataclass(frozen=True)
class Prepared:
    """Summary of a call of `prepare`.

    Attributes:
        card: Content of `card.json`.
        hours: Hours of audio in `utterances`.
        utterances: Number of rows there, labelled or not.
        rejected: Reasons by id.
        noticed: Notices by id, of utterances that are used.
        ratings: Number of rows in `ratings`.
    """

    card: Mapping[str, Any]
    hours: float
    utterances: int
    rejected: Mapping[str, str]
    noticed: Mapping[str, str]
    ratings: int = 0


@dataclass(frozen=True)
class Rehearsal:
    """Expected outcome of `prepare`.

    Attributes:
        classes: Class names in the order of the model's outputs; empty if they could not be read.
        problems: Reasons to refuse the corpus.
        warnings: Warnings that it would give.
        targets: What the corpus offers to be learnt and what is asked for; None of classes alone.
    """

    classes: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    targets: str | None = None


def prepare(entry: CorpusEntry, out: Path) -> Prepared:
    """Write `out/utterances`, `out/labels` and `out/ratings` of a corpus.

    Args:
        entry: The corpus; its name leads to its root.
        out: `data/<corpus>`; these folders are replaced.

    Raises:
        ParamsError: If the root is not set, missing or empty, or the protocol does not fit.
        ManifestError: If the corpus is empty, ids repeat, a label is not among the classes, a
            value is off its scale, or the splits leak or lack values of an attribute. Also if more
            than `allow_rejected` utterances cannot be used: then everything has been written, and
            the others are ready for use.
    """
    name = entry.name
    utterances, labels, ratings = out / "utterances", out / "labels", out / "ratings"
    # Before an earlier result is removed: a root may be missing.
    roots = [(each, _root(entry, each, utterances)) for each in entry.members or (entry,)]
    for folder in (utterances, labels, ratings):
        # Never written over in place: DVC may have linked the files there to its own copies.
        empty_folder(folder)
    if entry.members:
        _borrow(roots, out.parent)
    parts = [_take(each, root) for each, root in roots]
    found = _joined(entry, parts)
    survey = found.survey
    for same in contradictions(survey.labelled, survey.spans):
        for item in same:
            survey.notice(item.id, "the same recording (or turn) stands under another label too")
    # Before anything is refused, as messages refer to these lists.
    write_reasons(labels / REJECTED, survey.rejected)
    write_reasons(labels / NOTICED, survey.noticed)
    if not survey.labelled:
        raise ManifestError(_unusable(name, survey, found.total, labels / REJECTED))
    _manifest(entry, parts, survey).write(utterances)
    splits = _splits(entry, survey, found.splits)
    leaks = find_leaks(survey.labelled, splits, survey.contents)
    gate(leaks, entry.allow_leak, corpus=name)
    rated = _ratings(found.corpus, survey)
    write_ratings(ratings, rated)
    card = make_card(entry, found.corpus, survey, splits, leaks, rated)
    card["tables"] = _tables(entry, parts)
    write_rows(labels / LABELS, _labels(survey, splits))
    card["labels_sha256"] = file_sha256(labels / LABELS)
    write_json(labels / CARD, card)
    # Last: everything is written by now, and the other utterances are ready for use.
    for part in parts:
        if len(part.survey.faulty) > part.entry.allow_rejected:
            listed = labels / REJECTED
            raise ManifestError(_unusable(part.entry.name, part.survey, part.total, listed))
    seconds = sum(utterance.seconds or 0.0 for utterance in survey.utterances)
    return Prepared(
        card=card,
        hours=seconds / 3600,
        utterances=len(survey.utterances),
        rejected=survey.rejected,
        noticed=survey.noticed,
        ratings=len(rated),
    )


def rehearse(entry: CorpusEntry, root: Path) -> Rehearsal:
    """Predict what `prepare` would refuse or warn about, without opening any audio.

    Durations, damage and equal recordings under two names stay unknown.

    Args:
        entry: The corpus.
        root: Root of the corpus; for a generated one, or a union, any folder, which is not touched.
    """
    problems: list[str] = []
    try:
        roots = [(each, _root(entry, each, root)) for each in entry.members] or [(entry, root)]
        parts = [_take(each, where, problems) for each, where in roots]
    except HeronryError as error:
        return Rehearsal(problems=(*problems, str(error)))
    if not all(part.total for part in parts):
        return Rehearsal(problems=tuple(problems))
    warnings = [line for part in parts for line in part.survey.warnings]
    problems += [
        _unusable(part.entry.name, part.survey, part.total)
        for part in parts
        if len(part.survey.faulty) > part.entry.allow_rejected or not part.survey.labelled
    ]
    corpus = parts[0].corpus
    try:
        if all(part.survey.labelled for part in parts):
            found = _joined(entry, parts)
            corpus, survey = found.corpus, found.survey
            splits = _splits(entry, survey, found.splits)
            warnings += split_lines(survey.labelled, entry.protocol)
            counts = count_classes(survey.labelled, splits, classes_of(corpus, entry.targets))
            warnings += label_lines(survey.labelled, counts, survey.spans)
            leaks = find_leaks(survey.labelled, splits, survey.contents)
            gate(leaks, entry.allow_leak, corpus=entry.name)
    except HeronryError as error:
        problems.append(str(error))
    return Rehearsal(
        classes_of(corpus, entry.targets),
        tuple(problems),
        tuple(warnings),
        offered_line(corpus, entry.targets),
    )


def _root(entry: CorpusEntry, part: CorpusEntry, utterances: Path) -> Path:
    """Root of a corpus, or of a member of a union, whose generated audio has its own folder."""
    return root_of(part, utterances / part.name if entry.members else utterances)


def _borrow(roots: Sequence[tuple[CorpusEntry, Path]], data: Path) -> None:
    """Copy audio that members have generated; their adapters check it, and make the rest."""
    for member, root in roots:
        made = data / member.name / "utterances"
        if member.generated and made.is_dir():
            others = shutil.ignore_patterns("corpus.json", "manifest.jsonl")
            shutil.copytree(made, root, ignore=others, copy_function=shutil.copyfile)


def _take(entry: CorpusEntry, root: Path, problems: list[str] | None = None) -> Found:
    """Read a corpus and sort its items by what can be done with them.

    Args:
        entry: The corpus; no union.
        root: Folder that its audio paths are relative to.
        problems: List to add to what is wrong with the items as a whole; then no audio is opened,
            made or unpacked. None: it is raised.

    Raises:
        ManifestError: If there are problems and no list for them.
    """
    corpus = entry.adapter(root)
    open_audio = problems is None
    found = corpus.items() if open_audio else getattr(corpus, "preview", corpus.items)()
    items = [chosen(item, entry.targets) for item in found]
    wrong = _item_problems(entry, corpus, items, root)
    if problems is not None:
        problems += wrong
    elif wrong:
        raise ManifestError("\n".join(wrong))
    survey = Survey()
    if items:
        survey = take_survey(
            items,
            root,
            memory=hashes_file(entry.name, root) if open_audio and not entry.generated else None,
            follow_links=(entry.generated and open_audio) or entry.follow_links,
            open_audio=open_audio,
            targets=entry.targets,
        )
    survey.warnings += getattr(corpus, "warnings", ())
    return Found(entry, corpus, root, len(items), survey)


def _joined(entry: CorpusEntry, parts: Sequence[Found]) -> Found:
    """The corpus itself, or the union of its members.

    Raises:
        ManifestError: If classes, scales, speakers or folds of the members do not fit.
    """
    if not entry.members:
        return parts[0]
    if entry.protocol == "official":
        parts = [replace(part, splits=_splits(part.entry, part.survey)) for part in parts]
    union: Any = entry.adapter(parts[0].root)
    found: Found = union.join(entry, parts)
    if not found.survey.labelled:
        reasons = "; ".join(count_reasons(found.survey.rejected.values()))
        raise ManifestError(
            f"corpora.{entry.name}: no utterance of its members can be used ({reasons}); expected "
            "some: correct its `labels` and `targets`"
        )
    problems = _item_problems(entry, found.corpus, found.survey.labelled, found.root)
    if problems:
        raise ManifestError("\n".join(problems))
    return found


def _manifest(entry: CorpusEntry, parts: Sequence[Found], survey: Survey) -> Manifest:
    members = [
        Member(
            name=part.entry.name,
            kind=part.entry.kind,
            generated=part.entry.generated,
            rows=len(part.survey.utterances),
            **part.entry.shard_limits,
        )
        for part in parts
    ]
    return Manifest(
        corpus=entry.name,
        utterances=tuple(survey.utterances),
        kind=entry.kind,
        generated=entry.generated and not entry.members,
        members=tuple(members) if entry.members else (),
        **entry.shard_limits,
    )


def _tables(entry: CorpusEntry, parts: Sequence[Found]) -> dict[str, str]:
    """SHA-256 of the tables that were read, as the record of the corpus has them."""
    found: dict[str, str] = {}
    for part in parts:
        if not part.entry.generated:
            prefix = f"{part.entry.name}/" if entry.members else ""
            hashes = tables_sha256(part.entry.name, part.corpus, part.root)
            found |= {prefix + name: sha256 for name, sha256 in hashes.items()}
    return found


def _item_problems(
    entry: CorpusEntry, corpus: Corpus, items: Sequence[Item], root: Path
) -> list[str]:
    """Problems with the items of a corpus as a whole, one line each.

    Args:
        entry: The corpus.
        corpus: Adapter, after it yielded the items: some learn their classes from them.
        items: All of them.
        root: Where they were looked for.
    """
    where, classes = f"corpus {entry.name!r}", classes_of(corpus, entry.targets)
    if not items:
        return [
            f"{where} is empty: nothing of it was found in {root}; expected at least one "
            f"utterance: set {root_variable(entry.name)} to the folder that holds it"
        ]
    problems = []
    try:
        check_unique((item.id for item in items), where)
    except ManifestError as error:
        problems.append(str(error))
    named = bool({"classes", "votes"} & set(entry.targets))
    if (named and len(classes) < 2) or len(set(classes)) < len(classes):
        problems.append(f"{where} has the classes {list(classes)}; expected two or more, each once")
    labels = Counter(item.label for item in items if item.label is not None)
    listed = bool(entry.options.get("classes"))
    problems += [f"{where}: {fault}" for fault in label_faults(labels, listed=listed)]
    outside = [item for item in items if item.label is not None and item.label not in classes]
    if outside:
        quoted = ", ".join(f"{item.id}: {item.label!r}" for item in outside[:5])
        problems.append(
            f"{where}: {len(outside)} labels are not among its classes, such as {quoted}; expected "
            f"one of {list(classes)}: correct them, or corpora.{entry.name}.classes"
        )
    return problems + [
        f"{where}: {fault}" for fault in row_faults(items, classes, scales_of(corpus))
    ]


def _splits(
    entry: CorpusEntry, survey: Survey, own: Sequence[tuple[str, ...]] | None = None
) -> list[tuple[str, ...]]:
    """Splits of the labelled items: `own`, or those that the entry's protocol makes."""
    splits = (
        assign(
            survey.labelled,
            protocol=entry.protocol,
            folds=entry.folds,
            seed=entry.split_seed,
            fold=entry.fold,
        )
        if own is None
        else own
    )
    splits = [
        tuple("unused" if split in ("valid", "test") else split for split in row)
        if item.train_only
        else row
        for item, row in zip(survey.labelled, splits, strict=True)
    ]
    faults = list(split_faults(survey.labelled, splits, entry.targets))
    if faults:
        raise ManifestError("\n".join(f"corpus {entry.name!r}: {fault}" for fault in faults))
    return splits


def _ratings(corpus: Corpus, survey: Survey) -> list[Rating]:
    """Ratings of the labelled utterances; a rater rates an utterance once."""
    kept = {item.id for item in survey.labelled}
    # `ratings` is optional; `tuple()` is empty.
    found = [each for each in getattr(corpus, "ratings", tuple)() if each.id in kept]
    check_unique((f"{each.id} by {each.rater}" for each in found), "ratings")
    return found


def _labels(survey: Survey, splits: Sequence[tuple[str, ...]]) -> Iterator[Label]:
    shared = [f.name for f in fields(Item) if f.name in Label.__dataclass_fields__]
    seconds = survey.seconds
    for item, row in zip(survey.labelled, splits, strict=True):
        same = {name: getattr(item, name) for name in shared}
        yield Label(**same, seconds=seconds.get(item.id), splits=row)


def _unusable(name: str, survey: Survey, total: int, listed_in: Path | None = None) -> str:
    """Message that too many utterances cannot be used, quoting the first of them."""
    # Where none is left, those without a label matter as well as the faulty ones.
    worst = survey.faulty
    if not survey.labelled:
        worst = [*dict.fromkeys([*survey.faulty, *survey.rejected])]
    quoted = [f"{id}: {survey.rejected[id]}" for id in worst[:LISTED]]
    if len(worst) > LISTED:
        quoted.append(f"and {len(worst) - LISTED} more")
    what = f"corpus {name!r}: {len(worst)} of {total} utterances cannot be used"
    if listed_in is not None:
        what += f"; all are listed in {listed_in}"
    remedy = f"Correct the files or {root_variable(name)}"
    if survey.labelled:
        remedy += f", or go on without them: corpora.{name}.allow_rejected: {len(survey.faulty)}"
    return "\n  ".join([f"{what}:", *quoted]) + f"\n{remedy}"
