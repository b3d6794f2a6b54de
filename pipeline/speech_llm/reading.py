"""Reads a class in the answer of a language model.

Without regard to case, accents kept, in this order:

1. *exact*: the answer, or its first line, is a class, but for signs around it.
2. Words that name a class are looked for as whole words, the longest first: its name, or another
   word for it (`WORDS_FOR`, and those of the entry). `-` and `_` in a name count as spaces. A word
   that is denied does not count: a negation (`not`, `no`, `never`, `isn't`, `neither`,
   `rather than`, ...) stands at most three words before it, in the same clause.
3. If those that count name one class, it is that: *word* if by its name, else *synonym*. If they
   name several, the answer is *several*; if only denied ones are there, *negated*; else *none*. No
   class is guessed for these three.

A word for two classes of a corpus, such as `joy` where both `happiness` and `excited` had it, names
neither; a class always has its own name.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pipeline.runs.answers import How

WORDS_FOR = (
    ("angry", "anger", "ang"),
    ("happy", "happiness", "joy", "joyful", "joyous", "hap"),
    ("sad", "sadness", "sorrow", "sorrowful"),
    ("neutral", "neutrality", "neu"),
    ("fearful", "fear", "afraid", "scared", "frightened", "fea"),
    ("disgusted", "disgust", "dis"),
    ("surprised", "surprise", "sur"),
    ("excited", "excitement", "exc"),
    ("frustrated", "frustration", "fru"),
    ("contemptuous", "contempt"),
    ("calm", "calmness"),
    ("bored", "boredom"),
    ("amused", "amusement"),
    ("anxious", "anxiety"),
)
"""Words for one emotion each; a class that is one of them may be named by the others."""
_NEGATIONS = (
    *("not", "no", "never", "neither", "nor", "without", "hardly", "cannot", "isnt", "arent"),
    *("wasnt", "doesnt", "dont", "didnt", "cant", "rather than", "instead of"),
)
_REACH = 3
"""Words before a class among which a negation denies it."""
_CLAUSE = re.compile(r"[.,;:!?()\n]| but | although | yet ")
_AROUND = " \t\r\n.,;:!?\"'`*_#()[]{}<>«»“”‘’"


@dataclass(frozen=True)
class Reading:
    """The class that was read in an answer, or None, and how."""

    label: str | None
    how: How


class Reader:
    """Reads answers about the classes of one corpus.

    Args:
        classes: K names.
        synonyms: Further words by class.
    """

    def __init__(
        self, classes: Sequence[str], synonyms: Mapping[str, Iterable[str]] | None = None
    ) -> None:
        self._names = {_plain(name): name for name in classes}
        self._others = _others(classes, synonyms or {}, self._names)
        words = sorted({*self._names, *self._others}, key=len, reverse=True)
        either = "|".join(re.escape(word).replace(r"\ ", r"\s+") for word in words)
        self._mention = re.compile(rf"(?<!\w)(?:{either})(?!\w)")

    def read(self, answer: str) -> Reading:
        """Read one answer."""
        lines = [line for line in answer.splitlines() if line.strip(_AROUND)]
        for text in (answer, *lines[:1]):
            if (name := self._names.get(_plain(text))) is not None:
                return Reading(name, "exact")
        named: set[str] = set()
        by_name, denied = False, False
        for clause in _CLAUSE.split(_spaced(answer)):
            for match in self._mention.finditer(clause):
                word = " ".join(match[0].split())
                if _negated(clause[: match.start()]):
                    denied = True
                    continue
                by_name |= word in self._names
                named.add(self._names.get(word) or self._others[word])
        if len(named) == 1:
            return Reading(named.pop(), "word" if by_name else "synonym")
        return Reading(None, "several" if named else "negated" if denied else "none")


def _others(
    classes: Sequence[str], synonyms: Mapping[str, Iterable[str]], names: Mapping[str, str]
) -> dict[str, str]:
    """Class by further word; a word that several classes would have is left out."""
    found: dict[str, set[str]] = {}
    for name in classes:
        groups = (group for group in WORDS_FOR if _plain(name) in group)
        for word in (*(word for group in groups for word in group), *synonyms.get(name, ())):
            found.setdefault(_plain(word), set()).add(name)
    return {
        word: owners.pop()
        for word, owners in found.items()
        if word not in names and len(owners) == 1
    }


def _negated(before: str) -> bool:
    """Whether a negation stands among the last words."""
    words = before.replace("'", "").replace("’", "").split()
    text = f" {' '.join(words[-_REACH:])} "
    return any(f" {negation} " in text for negation in _NEGATIONS)


def _spaced(text: str) -> str:
    """Text in lower case, composed, with `_`, `-` and signs of emphasis as spaces."""
    folded = unicodedata.normalize("NFKC", text).casefold()
    return re.sub(r"[-_*`\"“”]", " ", folded)


def _plain(text: str) -> str:
    """A name or an answer in lower case, composed, without signs around it, `_` and `-` as spaces.

    >>> _plain(" **Very-Sad**. ")
    'very sad'
    """
    folded = unicodedata.normalize("NFKC", text).casefold().strip(_AROUND)
    return " ".join(re.sub(r"[-_]", " ", folded).split())
