"""What utterances offer to be learnt: targets chosen, checked, counted by split, and for the card.

A row of labels.jsonl has the targets that its corpus entry asks for, and no others. What is unknown
is absent: no missing value is ever a number, and no class is made from votes or attributes.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from features.arguments import counted
from features.corpus.adapter import Corpus, Item, Target
from features.corpus.agreement import Judgements, krippendorff_alpha
from features.corpus.manifest import UNLABELLED, USED, Label
from features.corpus.ratings import Rating

CLASSES_ALONE: tuple[Target, ...] = ("classes",)
LEAST_KNOWN = 2  # values of an attribute in each split: with fewer no score is defined
DIGITS = 6  # of statistics on the card
Scales = Mapping[str, tuple[float, float]]


def scales_of(corpus: Corpus) -> Scales:
    """Lowest and highest value of each attribute of a corpus; empty where it has none."""
    return getattr(corpus, "scales", {})


def classes_of(corpus: Corpus, targets: Sequence[Target]) -> tuple[str, ...]:
    """Class names of a corpus; none where only attributes are asked for."""
    return tuple(corpus.classes) if {"classes", "votes"} & set(targets) else ()


def offered_line(corpus: Corpus, targets: Sequence[Target]) -> str | None:
    """What a corpus offers to be learnt and what of it is asked for; None of classes alone."""
    offers = getattr(corpus, "offers", CLASSES_ALONE)
    if offers == CLASSES_ALONE:
        return None
    each = [f"{name} {low:g} to {high:g}" for name, (low, high) in scales_of(corpus).items()]
    scales = f" ({', '.join(each)})" if each else ""
    return f"offers {', '.join(offers)}{scales}; asked for: {', '.join(targets)}"


def chosen(item: Item, targets: Sequence[Target]) -> Item:
    """An item without the targets that nobody asks for; its class stays beside its votes."""
    if "attributes" not in targets and item.values is not None:
        item = dataclasses.replace(item, values=None)
    if "votes" not in targets and (item.votes, item.votes_outside, item.secondary) != (None,) * 3:
        item = dataclasses.replace(item, votes=None, votes_outside=None, secondary=None)
    if item.label is not None and not {"classes", "votes"} & set(targets):
        item = dataclasses.replace(item, label=None)
    return item


def lacks_targets(item: Item, targets: Sequence[Target]) -> str | None:
    """Reason to leave out an item that has none of the targets; None for one that has some."""
    has = {"classes": item.label, "votes": item.votes, "attributes": item.values}
    if item.split == UNLABELLED or any(has[target] is not None for target in targets):
        return None
    if tuple(targets) == CLASSES_ALONE:
        return "it has no label"
    return f"it has no {' and no '.join(_SINGULAR[target] for target in targets)}"


_SINGULAR: Mapping[Target, str] = {
    "classes": "class",
    "votes": "votes",
    "attributes": "value of an attribute",
}


def row_faults(
    rows: Iterable[Item | Label], classes: Sequence[str], scales: Scales
) -> Iterator[str]:
    """Votes for what is no class, and values off their scale, a line each kind of fault."""
    unknown: dict[str, list[str]] = {}
    off: dict[str, list[str]] = {}
    for row in rows:
        for field in ("votes", "secondary"):
            for name in getattr(row, field) or ():
                if name not in classes:
                    unknown.setdefault(f"{field} for {name!r}", []).append(row.id)
        for name, value in (row.values or {}).items():
            if name not in scales:
                unknown.setdefault(f"values of {name!r}", []).append(row.id)
            elif not scales[name][0] <= value <= scales[name][1]:
                off.setdefault(name, []).append(f"{row.id}: {value:g}")
    for what, ids in unknown.items():
        expected = list(scales) if what.startswith("values") else list(classes)
        yield f"{what} in {counted(ids)}; expected some of {expected}"
    for name, found in off.items():
        low, high = scales[name]
        yield (
            f"{len(found)} values of {name!r} are off its scale, such as {', '.join(found[:5])}; "
            f"expected {low:g} to {high:g}"
        )


def split_faults(
    items: Sequence[Item], splits: Sequence[Sequence[str]], targets: Sequence[Target]
) -> Iterator[str]:
    """Targets that a split cannot be trained or scored on, a line each."""
    if "votes" in targets and all(item.votes is None for item in items):
        yield "votes are asked for, and no utterance has any: leave them out of `targets`"
    if "attributes" not in targets:
        return
    names = list(dict.fromkeys(name for item in items for name in item.values or ()))
    if not names:
        yield "attributes are asked for, and no utterance has any: leave them out of `targets`"
    for name in names:
        for fold, counts in enumerate(known_counts(items, splits, name)):
            few = [f"{split} {counts[split]}" for split in USED if counts[split] < LEAST_KNOWN]
            if few:
                yield (
                    f"attribute {name!r}, fold {fold}: known values by split are {', '.join(few)}; "
                    f"expected {LEAST_KNOWN} or more in each: choose another protocol"
                )
            learnt = {
                (item.values or {}).get(name)
                for item, row in zip(items, splits, strict=True)
                if row[fold] == "train"
            } - {None}
            if len(learnt) == 1 and not few:
                yield (
                    f"attribute {name!r}, fold {fold}: all known values of the training split are "
                    f"{learnt.pop():g}; expected some that differ: there is nothing to learn"
                )


def known_counts(
    items: Sequence[Item], splits: Sequence[Sequence[str]], attribute: str
) -> list[dict[str, int]]:
    """Utterances by split of which an attribute is known, in each fold."""
    none = dict.fromkeys(USED, 0)
    known = [
        row for item, row in zip(items, splits, strict=True) if attribute in (item.values or {})
    ]
    return [none | Counter(row[fold] for row in known) for fold in range(len(splits[0]))]


def targets_card(
    corpus: Corpus,
    targets: Sequence[Target],
    items: Sequence[Item],
    splits: Sequence[Sequence[str]],
    ratings: Sequence[Rating],
) -> dict[str, Any] | None:
    """The field `targets` of card.json; None of a corpus of classes alone.

    Args:
        corpus: Adapter of the corpus.
        targets: What its entry asks for.
        items: Labelled utterances.
        splits: For each of them, one split per fold.
        ratings: What each rater said of them.
    """
    if tuple(targets) == CLASSES_ALONE:
        return None
    policies = dict(getattr(corpus, "policies", {}))
    attributes = {}
    for name, (low, high) in scales_of(corpus).items() if "attributes" in targets else ():
        values = np.array([i.values[name] for i in items if i.values and name in i.values], float)
        if len(values):
            attributes[name] = {
                "low": low,
                "high": high,
                "known": known_counts(items, splits, name),
                "mean": round(float(values.mean()), DIGITS),
                "sd": round(float(values.std()), DIGITS),
            }
    own = policies.get("self_evaluation") == "include"
    heard = [rating for rating in ratings if own or not rating.self]
    return {
        "tasks": list(targets),
        "attributes": attributes,
        "votes": _votes(items) if "votes" in targets else None,
        "policies": policies,
        "alpha": _alphas(items, heard, attributes),
    }


def target_facts(targets: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Names and texts that describe the field `targets` of a card."""
    yield "targets", ", ".join(targets["tasks"])
    for name, of in targets.get("attributes", {}).items():
        known = ", ".join(f"{count} {split}" for split, count in of["known"][0].items())
        fold = " in fold 0" if len(of["known"]) > 1 else ""
        statistics = f"mean {of['mean']:.3g}, sd {of['sd']:.3g}"
        yield f"  {name}", f"{of['low']:g} to {of['high']:g}, {statistics}, known of {known}{fold}"
    votes = targets.get("votes")
    if votes:
        raters = "{raters_min:g} to {raters_max:g} raters an utterance, mean {raters_mean:.3g}"
        outside = f"{100 * votes['outside']:.1f} % of the votes outside the classes"
        yield "  votes", f"{raters.format(**votes)}; {outside}"
    if targets.get("policies"):
        yield "  policies", ", ".join(f"{key}: {of}" for key, of in targets["policies"].items())
    for name, alpha in targets.get("alpha", {}).items():
        shown = "undefined, as all raters said the same" if alpha is None else f"{alpha:.3f}"
        yield f"  alpha of {name}", shown


def _votes(items: Sequence[Item]) -> dict[str, float] | None:
    pairs = [
        (sum((item.votes or {}).values()), item.votes_outside or 0)
        for item in items
        if item.votes is not None or item.votes_outside
    ]
    if not pairs:
        return None
    raters = [inside + outside for inside, outside in pairs]
    return {
        "raters_min": min(raters),
        "raters_mean": round(sum(raters) / len(raters), DIGITS),
        "raters_max": max(raters),
        "outside": round(sum(outside for _, outside in pairs) / sum(raters), DIGITS),
    }


def _alphas(
    items: Sequence[Item], ratings: Sequence[Rating], attributes: Iterable[str]
) -> dict[str, float | None]:
    """Krippendorff's alpha of classes, by counts where single ratings are not known, and values."""
    found: dict[str, float | None] = {}
    said = [(r.id, r.rater, r.label) for r in ratings if r.label is not None]
    if not said:
        said = [
            (item.id, str(number), name)
            for item in items
            for number, name in enumerate(
                name for name, count in (item.votes or {}).items() for _ in range(int(count))
            )
        ]
    if said:
        numbers = {name: float(n) for n, name in enumerate(sorted({name for *_, name in said}))}
        rows = [(id, rater, numbers[name]) for id, rater, name in said]
        found["classes"] = _defined(krippendorff_alpha(_judgements(rows), "nominal"))
    for attribute in attributes:
        valued = [
            (r.id, r.rater, float(r.values[attribute]))
            for r in ratings
            if r.values is not None and attribute in r.values
        ]
        if valued:
            found[attribute] = _defined(krippendorff_alpha(_judgements(valued), "interval"))
    return found


def _judgements(rows: Sequence[tuple[str, str, float]]) -> Judgements:
    ids, items = np.unique([id for id, *_ in rows], return_inverse=True)
    names, raters = np.unique([rater for _, rater, _ in rows], return_inverse=True)
    values = np.array([value for *_, value in rows])
    return Judgements(items, raters, values, len(ids), len(names))


def _defined(value: float) -> float | None:
    return None if np.isnan(value) else round(value, DIGITS)
