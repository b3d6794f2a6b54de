"""Every numeric setting of every plug-in and record has a range, and a range means what it says."""

from __future__ import annotations

import inspect
import math
import typing
from typing import Annotated, Any

import pytest

from features import ranges
from features.arguments import parameter_types, problems
from features.backbone.entry import PACKAGE as BACKBONES
from features.backbone.entry import BackboneEntry
from features.corpus.entry import PACKAGE as CORPORA
from features.corpus.entry import CorpusEntry
from features.ranges import Interval
from features.settings.plugins import kinds, load
from pipeline.model.checkpoint import FUSIONS
from pipeline.model.inputs import InputSettings
from pipeline.params.file import ModelEntry, Params
from pipeline.params.training import TrainParams
from pipeline.params.tuning import InitRun, LoraParams, SlotTuning, TuneParams
from tests.support.models.number_ranges import numbers

RECORDS: dict[str, Any] = {
    record.__name__: record
    for record in (
        *(BackboneEntry, CorpusEntry, InitRun, InputSettings, LoraParams, ModelEntry, Params),
        *(SlotTuning, TrainParams, TuneParams),
    )
}
TARGETS = RECORDS | {
    f"{package}.{kind}": load(package, kind)
    for package in (BACKBONES, CORPORA, FUSIONS)
    for kind in kinds(package)
}
SUPPLIED = ("root", "specs", "classes")  # by the caller, never by params.yaml
ALIASES = {n: value for n, value in vars(ranges).items() if typing.get_origin(value) is Annotated}


def test_the_search_sees_numbers_wherever_they_stand() -> None:
    bare = int | None, list[float], tuple[int, ...], dict[str, float], Annotated[int, "steps"]
    assert [[len(found[1]) for found in numbers(hint)] for hint in bare] == [[0]] * len(bare)
    assert [kind for kind, _ in numbers(LITTLE | None)] == [int]


LITTLE = Annotated[int, Interval(ge=1, le=8)]


@pytest.mark.parametrize("name", TARGETS)
def test_every_number_has_a_range_with_two_ends(name: str) -> None:
    for setting, hint in parameter_types(TARGETS[name]).items():
        if setting in SUPPLIED and name not in RECORDS:
            continue
        for kind, bounds in numbers(hint):
            ends = [
                (b.ge is not None or b.gt is not None, b.le is not None or b.lt is not None)
                for b in bounds
            ]
            assert ends == [(True, True)], f"{name}: {setting} is a {kind.__name__} without a range"


def test_some_settings_are_numbers() -> None:
    """So that the test above cannot pass by finding nothing."""
    found = {
        f"{name}.{setting}"
        for name, target in TARGETS.items()
        for setting, hint in parameter_types(target).items()
        if any(numbers(hint))
    }
    for setting in ("TrainParams.betas", "pipeline.fusion.heron.d_model", "ModelEntry.seeds"):
        assert setting in found
    for setting in ("features.backbones.logmel.hop", "features.backbones.whisper.layer"):
        assert setting in found
    assert len(found) > 80


@pytest.mark.parametrize("name", TARGETS)
def test_defaults_lie_in_their_ranges(name: str) -> None:
    parameters = inspect.signature(TARGETS[name]).parameters
    given = {
        setting: list(p.default) if isinstance(p.default, tuple) else p.default
        for setting, p in parameters.items()
        if isinstance(p.default, int | float | tuple)
    }
    missing = [p.name for p in parameters.values() if p.name not in given]
    assert problems(TARGETS[name], given, "x", skip=missing) == []


@pytest.mark.parametrize("name", ALIASES)
def test_no_alias_lets_odd_numbers_pass(name: str) -> None:
    def target(value: Any) -> None:
        del value

    target.__annotations__["value"] = ALIASES[name]
    for value in (math.nan, math.inf, -math.inf, -1, 10**400, 1e300, True, "1", None, [1]):
        (found,) = problems(target, {"value": value}, "w")
        assert len(found) < 200
