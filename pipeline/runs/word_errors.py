"""Word error rate of recognised text against the reference.

Substitutions, deletions and insertions of the shortest edit (Levenshtein distance over words) are
summed over utterances and divided by the words of all references. So a long utterance counts for
more than a short one, and the rate may exceed 1. Differences in case, punctuation and apostrophes
are not counted; spellings of numbers and contractions ("isn't", "is not") are. Where words are not
separated by spaces, as in Chinese, the rate says little.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

TEXT = "text"  # name of the text slot


def normalised(text: str) -> str:
    """Words of a transcript in lower case, without punctuation and typographic variants.

    >>> normalised(" Well… DON\u2019T  you? ")
    'well dont you'
    """
    plain = unicodedata.normalize("NFKC", text).casefold()
    # An apostrophe vanishes (don't, dont); other punctuation separates words.
    return " ".join(re.sub(r"[^\w]+|_", " ", re.sub(r"['\u2019\u2018`]", "", plain)).split())


@dataclass(frozen=True)
class WordErrors:
    """Number of errors, and number of words of the references."""

    errors: int
    words: int

    @property
    def rate(self) -> float | None:
        """Errors per word of the reference; None without any word."""
        return self.errors / self.words if self.words else None


def word_errors(pairs: Iterable[tuple[str, str]]) -> WordErrors:
    """Count the errors of some utterances.

    Args:
        pairs: Reference and recognised text of each utterance.

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
    """Smallest number of words to replace, remove or add to turn one sequence into the other."""
    if first == second:
        return 0
    # A row of the table of edits: entry j is the distance of the words of `first` so far from the
    # first j words of `second`; at the start there are none of `first`.
    above = list(range(len(second) + 1))
    for number, word in enumerate(first, 1):
        row = [number]
        for place, other in enumerate(second):
            # Replace (or keep) the word, remove it, or add the other one.
            row.append(min(above[place] + (word != other), above[place + 1] + 1, row[place] + 1))
        above = row
    return above[-1]
