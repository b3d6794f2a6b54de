"""Entries of `ensembles` in params.yaml: whose predictions are combined, and how."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from features.arguments import problems, quoted, refuse
from features.ranges import Interval, MinLen
from features.settings.entry_names import form_problems
from pipeline.params.catalogue.entries import known_entry

MOST_MEMBERS = 64

Member = Annotated[str, MinLen(1)]


@dataclass(frozen=True)
class EnsembleEntry:
    """An entry of `ensembles`.

    Attributes:
        name: Key in params.yaml.
        members: Run folders of the selected corpus as `<regime>/<name>`, such as `cached/heron`,
            or names of DVC's experiments.
        method: `vote` of the members' classes, `mean` of their probabilities, or `stacking`: a
            multinomial logistic regression on them.
        search: How members are chosen by their validation rows; `none`: all take part.
        metric: Score of the validation rows that the search raises, and by which the best single
            member is chosen.
        most: Largest number of members that the search takes; greedy counts repeated ones.
    """

    name: str
    members: Annotated[Sequence[Member], MinLen(1)]
    method: Literal["vote", "mean", "stacking"] = "mean"
    search: Literal["none", "greedy", "exhaustive"] = "none"
    metric: Literal["accuracy", "uar", "macro_f1", "weighted_f1"] = "macro_f1"
    most: Annotated[int, Interval(ge=1, le=100)] = 10


def ensemble_problems(name: str, mapping: Any) -> list[str]:
    """Problems with an entry of `ensembles`, one line each."""
    where = f"ensembles.{name}"
    example = "{members: [cached/heron, cached/concat], method: mean}"
    found = form_problems("ensembles", name, mapping, example)
    found = found or problems(EnsembleEntry, mapping, where, skip=("name",))
    if found:
        return found
    members = list(mapping["members"])
    twice = next((each for each in members if members.count(each) > 1), None)
    if twice is not None:
        found.append(f"{where}.members: given {quoted(twice)} twice; expected each once")
    if f"ensemble/{name}" in members:
        found.append(f"{where}.members: given itself; expected other runs")
    if len(members) > MOST_MEMBERS:
        found.append(
            f"{where}.members: given {len(members)}; expected {MOST_MEMBERS} members at most"
        )
    return found


def ensemble_entry(raw: Mapping[str, Any], name: str) -> EnsembleEntry:
    """The entry of that name, or a `ParamsError` listing its problems.

    Args:
        raw: params.yaml, as it was read.
        name: Key below `ensembles`.
    """
    mapping = known_entry("ensembles", raw.get("ensembles") or {}, name)
    refuse(ensemble_problems(name, mapping))
    return EnsembleEntry(name=name, **mapping)
