"""Word error rate: how far recognised words are from the reference.

Substitutions, deletions and insertions of the shortest edit (Levenshtein distance over words),
summed over utterances and divided by the words of all references: the rate of the corpus, in which
a long utterance counts for more than a short one, and which may exceed 1. Case, punctuation and
apostrophes are no errors; spellings of numbers and contractions ("isn't", "is not") are. Where
words are not written apart, as in Chinese, it says little.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

TEXT = "text"
"""The slot of the text."""


def normalised(text: str) -> str:
    """Words of a transcript without case, punctuation or accents of typesetting.

    >>> normalised(" Well… DON\u2019T  you? ")
    'well dont you'
    """
    plain = unicodedata.normalize("NFKC", text).casefold()
    return " ".join(re.sub(r"[^\w]+|_", " ", re.sub(r"['\u2019\u2018`]", "", plain)).split())


@dataclass(frozen=True)
class WordErrors:
    """Errors against references, and how many words these hold."""

    errors: int
    words: int

    @property
    def rate(self) -> float | None:
        """Errors a word of the reference; None without any word."""
        return self.errors / self.words if self.words else None


def word_errors(pairs: Iterable[tuple[str, str]]) -> WordErrors:
    """Count over utterances.

    Args:
        pairs: Reference and recognised text of each.

    >>> word_errors([("Well, I don't know.", "well I dont no"), ("Yes!", "oh yes")])
    WordErrors(errors=2, words=5)
    """
    errors = words = 0
    for reference, recognised in pairs:
        expected, heard = normalised(reference).split(), normalised(recognised).split()
        errors += edits(expected, heard)
        words += len(expected)
    return WordErrors(errors, words)


def edits(first: Sequence[str], second: Sequence[str]) -> int:
    """Fewest words to replace, remove or add that make one sequence the other."""
    if first == second:
        return 0
    above = list(range(len(second) + 1))  # to make each beginning of `second` from nothing
    for number, word in enumerate(first, 1):
        row = [number]
        for place, other in enumerate(second):
            row.append(min(above[place] + (word != other), above[place + 1] + 1, row[place] + 1))
        above = row
    return above[-1]
