"""Entries of `ensembles`: what is wrong with them."""

from __future__ import annotations

from typing import Any

import pytest

from features.errors import ParamsError
from pipeline.params.ensembles import EnsembleEntry, ensemble_entry

RUNS = ["cached/heron", "an-experiment"]


@pytest.mark.parametrize(
    ("mapping", "told"),
    [
        (None, "ensembles.mix: given None; expected a mapping such as"),
        ({}, "ensembles.mix.members: given nothing; expected a list"),
        ({"members": []}, r"ensembles.mix.members: given \[\]; expected a list"),
        (
            {"members": "cached/heron"},
            "ensembles.mix.members: given 'cached/heron'; expected a list",
        ),
        ({"members": [1]}, r"ensembles.mix.members: given \[1\]; expected a list"),
        ({"members": ["a", "b", "a"]}, "members: given 'a' twice; expected each once"),
        ({"members": [*RUNS, "ensemble/mix"]}, "members: given itself; expected other runs"),
        ({"members": [f"e{k}" for k in range(65)]}, "given 65; expected 64 members at most"),
        (
            {"members": RUNS, "method": "median"},
            "ensembles.mix.method: given 'median'; expected one",
        ),
        ({"members": RUNS, "search": ["greedy"]}, "ensembles.mix.search: given"),
        ({"members": RUNS, "most": 0}, "ensembles.mix.most: given 0; expected an integer from 1"),
        ({"members": RUNS, "weights": [1]}, "ensembles.mix.weights: given an unknown key"),
    ],
)
def test_what_is_wrong_is_told(mapping: Any, told: str) -> None:
    with pytest.raises(ParamsError, match=told):
        ensemble_entry({"ensembles": {"mix": mapping}}, "mix")


def test_another_ensemble_may_be_a_member() -> None:
    members = [*RUNS, "ensemble/other"]
    found = ensemble_entry({"ensembles": {"mix": {"members": members}}}, "mix")
    assert found == EnsembleEntry("mix", members)
