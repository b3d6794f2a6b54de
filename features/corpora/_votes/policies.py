"""What is done with utterances that have no class of the corpus, as its entry chooses.

No policy makes a class of votes, or a number of a missing value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from features.corpus.adapter import Target
from features.errors import ParamsError

NoAgreement = Literal["drop", "train", "keep"]
"""Utterances without agreement: left out; trained on for other targets; tested on as well."""
Other = Literal["drop", "class", "outside"]
"""Utterances of another emotion: left out; a class `other`; kept for their other targets."""
SelfEvaluation = Literal["exclude", "include"]
"""Whether a speaker's own view counts among the raters."""
NEEDS_MORE = {
    "no_agreement": ("train", "keep"),
    "other": ("outside",),
    "self_evaluation": ("include",),
}


@dataclass(frozen=True)
class Fate:
    """What becomes of an utterance that has no class of the corpus.

    Attributes:
        excluded: Reason to leave it out; None if it is kept for its other targets.
        train_only: Whether validation and test leave it out.
    """

    excluded: str | None = None
    train_only: bool = False


def without_agreement(policy: NoAgreement, reason: str) -> Fate:
    """Fate of an utterance without agreement of its raters."""
    return Fate(reason if policy == "drop" else None, train_only=policy == "train")


def outside_classes(policy: Other, reason: str) -> Fate:
    """Fate of an utterance of an emotion that is none of the classes."""
    return Fate(None if policy == "outside" else reason)


def check_policies(targets: Sequence[Target], **policies: str) -> dict[str, str]:
    """The policies, for the card.

    Raises:
        ParamsError: If one keeps utterances for targets that nobody asks for.
    """
    for name, policy in policies.items():
        if policy in NEEDS_MORE[name] and tuple(targets) == ("classes",):
            raise ParamsError(
                f"{name}: {policy} with targets [classes]; expected votes or attributes among the "
                f"targets, since such utterances have no class: add them, or leave {name} out"
            )
    return policies
