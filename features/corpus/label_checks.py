"""Find odd labels before a model is trained on them.

Class names that may be two spellings of one, splits that lack a class, recordings under two labels,
and labels that are not classes, such as ratings. Nothing here reads audio.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Mapping, Sequence
from itertools import combinations

from features.corpus.adapter import Item
from features.corpus.manifest import UNLABELLED, USED

NAMED = 10  # classes, pairs or folds that a line names
COMPARED = 1_000  # classes; more of them are not compared in pairs
MANY = 10  # classes; from this number on, each must have two utterances on average
_SHORTEST_BEGINNING = 3  # letters: `sad` is the beginning of `sadness`
_SHORTEST_TYPO = 5  # letters: too many shorter words differ by one letter, such as sad and mad
_SEPARATORS = re.compile(r"[\s_\-\u2010-\u2015]+")
_NUMBER = re.compile(r"[+-]?(?:\d+[.,]?\d*|[.,]\d+)(?:[eE][+-]?\d+)?")
_WITHOUT = {
    "train": "a model cannot learn it, and what is tested of it counts as wrong",
    "valid": "the epoch that is kept is chosen without it",
    "test": "it is not tested",
}


def similar_classes(classes: Sequence[str]) -> list[tuple[str, str]]:
    """Pairs of class names that may be two spellings of one class.

    They are equal apart from case, spaces, `_`, `-` and Unicode composition; or they differ in a
    single word, of which one is the beginning of the other (surprise, surprised), or which differ
    by one letter (surprise, suprise). No pairs among more than `COMPARED` classes.

    >>> similar_classes(["Fear", "calm", "fear"]), similar_classes(["sad", "sadness", "mad"])
    ([('Fear', 'fear')], [('sad', 'sadness')])
    """
    if len(classes) > COMPARED:
        return []
    words = [_words(name) for name in classes]
    return [
        (classes[one], classes[other])
        for one, other in combinations(range(len(classes)), 2)
        if "".join(words[one]) == "".join(words[other]) or _near(words[one], words[other])
    ]


def _words(name: str) -> list[str]:
    if _NUMBER.fullmatch(name):
        return [name]  # the dash of -1 is not a separator
    plain = unicodedata.normalize("NFKC", name).casefold()
    return [word for word in _SEPARATORS.split(plain) if word] or [name]


def _near(one: Sequence[str], other: Sequence[str]) -> bool:
    differing = [pair for pair in zip(one, other, strict=False) if pair[0] != pair[1]]
    if len(one) != len(other) or len(differing) != 1:
        return False
    short, long = sorted(differing[0], key=len)
    if not (short.isalpha() and long.isalpha()):
        return False
    begins = len(short) >= _SHORTEST_BEGINNING and long.startswith(short)
    return begins or (len(short) >= _SHORTEST_TYPO and _one_edit(short, long))


def _one_edit(short: str, long: str) -> bool:
    """Whether one letter is inserted, replaced or swapped with the next; `short` != `long`."""
    first = next((i for i, (a, b) in enumerate(zip(short, long, strict=False)) if a != b), None)
    if first is None:
        # `short` is the beginning of `long`.
        return len(long) - len(short) == 1
    if len(long) > len(short):
        # Equal if one letter was inserted at `first`.
        return short[first:] == long[first + 1 :]
    swapped = short[:first] + short[first : first + 2][::-1] + short[first + 2 :]
    return swapped == long or short[first + 1 :] == long[first + 1 :]


def lacking_classes(
    counts: Sequence[Mapping[str, Mapping[str, int]]],
) -> list[dict[str, list[str]]]:
    """Classes without an utterance, by split, in each fold; splits with all classes are omitted.

    Of a corpus whose utterances have votes alone there is nothing to say.

    Args:
        counts: For each fold, utterances by split and class, as from `count_classes`.
    """
    return [
        {
            split: absent
            for split in USED
            if (absent := [name for name, count in fold.get(split, {}).items() if not count])
            and any(any(of.values()) for of in fold.values())
        }
        for fold in counts
    ]


def lacking_lines(lacking: Sequence[Mapping[str, Sequence[str]]]) -> list[str]:
    """Result of `lacking_classes` as text, one line per split and set of folds, worst first."""
    folds_of: dict[tuple[str, str], list[int]] = defaultdict(list)
    for fold, by_split in enumerate(lacking):
        for split, names in by_split.items():
            for name in names:
                folds_of[split, name].append(fold)
    everywhere = [
        name
        for name in dict.fromkeys(name for _, name in folds_of)
        if all(len(folds_of.get((split, name), ())) == len(lacking) for split in USED)
    ]
    lines = [f"no utterance has the class {named(everywhere)}"] if everywhere else []
    together: dict[tuple[str, tuple[int, ...]], list[str]] = defaultdict(list)
    for (split, name), folds in folds_of.items():
        if name not in everywhere:
            together[split, tuple(folds)].append(name)
    ranked = sorted(together.items(), key=lambda pair: USED.index(pair[0][0]))
    return lines + [
        f"{split} has no utterance of the class {named(names)}{_where(folds, len(lacking))}: "
        f"{_WITHOUT[split]}"
        for (split, folds), names in ranked
    ]


def _where(folds: Sequence[int], of: int) -> str:
    if of == 1:
        return ""
    if len(folds) == of:
        return f" in any of the {of} folds"
    listed = ", ".join(map(str, folds[:NAMED])) + (" ..." if len(folds) > NAMED else "")
    return f" in {len(folds)} of {of} folds ({listed})"


def contradictions(
    items: Iterable[Item], contents: Mapping[str, Hashable]
) -> list[tuple[Item, ...]]:
    """Groups of items that are the same speech under more than one label.

    Without audio, equal words are the same speech only within one turn of a dialogue: "Okay." may
    be said twice with different meanings.

    Args:
        items: Labelled utterances.
        contents: Identity of the recording and the span of it, by id, for items with audio.
    """
    same: dict[Hashable, list[Item]] = defaultdict(list)
    for item in items:
        if item.id in contents:
            same[contents[item.id]].append(item)
        elif item.audio is None and item.dialogue is not None and item.turn is not None:
            same[item.dialogue, item.turn, item.speaker, item.text].append(item)
    return [
        tuple(held) for held in same.values() if len({item.label for item in held} - {None}) > 1
    ]


def contradiction_lines(found: Sequence[Sequence[Item]]) -> list[str]:
    """Number and examples of contradictions, in at most one line."""
    if not found:
        return []
    listed = "; ".join(
        " = ".join(f"{item.id} ({item.label})" for item in held[:NAMED]) for held in found[:3]
    )
    utterances = sum(map(len, found))
    return [
        f"recordings (without audio: turns) under more than one label: {len(found)}, in "
        f"{utterances} utterances, such as {listed}; at most one of the labels can be right"
    ]


def split_lines(items: Sequence[Item], protocol: str) -> list[str]:
    """Warning that the corpus's own splits are not used, in at most one line."""
    counts = Counter(item.split for item in items if item.split not in (None, UNLABELLED))
    if protocol == "official" or not counts:
        return []
    each = ", ".join(f"{split} {count}" for split, count in counts.items())
    return [
        f"the split that {counts.total()} of {len(items)} utterances name ({each}) is ignored: "
        f"protocol {protocol} makes its own, and `protocol: official` would use it"
    ]


def label_lines(
    items: Sequence[Item],
    counts: Sequence[Mapping[str, Mapping[str, int]]],
    contents: Mapping[str, Hashable],
) -> list[str]:
    """Oddities of the labels of a corpus, one line of text each.

    Args:
        items: Labelled utterances.
        counts: For each fold, utterances by split and class.
        contents: Identity of recordings and spans, as for `contradictions`.
    """
    return [
        *class_lines(counts),
        *lacking_lines(lacking_classes(counts)),
        *contradiction_lines(contradictions(items, contents)),
    ]


def label_faults(counts: Mapping[str, int], *, listed: bool) -> list[str]:
    """Fault of labels that cannot be meant as classes, in at most one line.

    Args:
        counts: Utterances by label.
        listed: Whether params.yaml lists the classes; then any labels are accepted.
    """
    if listed or not counts:
        return []
    utterances, several = sum(counts.values()), f"{len(counts)} labels, {named(counts)},"
    if all(map(_NUMBER.fullmatch, counts)) and not all(map(_whole, counts)):
        found = f"the {several} are numbers with fractions"
    elif len(counts) >= MANY and 2 * len(counts) > utterances:
        found = f"{utterances} utterances have the {several} fewer than two utterances each"
    else:
        return []
    return [
        f"{found}; expected names of a few classes, not ratings, texts or ids: name the column of "
        "the classes in `columns: {label: ...}`, or cut ratings into classes first; if these are "
        "the classes, list them in `classes`"
    ]


def class_lines(folds: Sequence[Mapping[str, Mapping[str, int]]]) -> list[str]:
    """Oddities of the classes alone, whatever the splits, one line each.

    Args:
        folds: For each fold, utterances by split and class.
    """
    counts: Counter[str] = Counter()
    for of_split in folds[0].values():
        counts.update(of_split)
    lines = []
    pairs = similar_classes(list(counts))
    if pairs:
        listed = "; ".join(f"{one!r} and {other!r}" for one, other in pairs[:NAMED])
        more = f" and {len(pairs) - NAMED} more pairs" if len(pairs) > NAMED else ""
        lines.append(
            f"classes that differ in spelling alone, or nearly: {listed}{more}; each is a class of "
            "its own: give them one name if they are one"
        )
    if len(counts) > 2 and all(map(_NUMBER.fullmatch, counts)):
        lines.append(
            f"all {len(counts)} classes are numbers, {named(counts)}: if these are ratings, their "
            "order is lost; if they stand for classes, names would say which"
        )
    single = [name for name, count in counts.items() if count == 1]
    if single:
        lines.append(
            f"one utterance alone has the class {named(single)}: it cannot be both learnt and "
            "tested"
        )
    return lines


def named(names: Iterable[str]) -> str:
    """The first names of many, in quotes."""
    listed = [repr(name) for name in names]
    more = [f"{len(listed) - NAMED} more"] if len(listed) > NAMED else []
    return ", ".join(listed[:NAMED] + more)


def _whole(number: str) -> bool:
    return float(number.replace(",", ".")).is_integer()
