"""Keywords are checked against signatures, and each problem is reported once."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, TypedDict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.arguments import MOST_UNKNOWN, completed, in_lines, one_of, problems, quoted
from features.ranges import Interval, MinLen, Share


@dataclass(frozen=True)
class Model:
    width: int
    dropout: float = 0.1
    pooling: Literal["mean", "first"] = "mean"
    layers: tuple[int, ...] = ()
    weights: Mapping[str, float] = field(default_factory=dict)
    folder: Path | None = None


class Layer:
    def __init__(self, root: Path, *, bias: bool = True) -> None:
        self.root, self.bias = root, bias


class Child(Layer):
    """Takes the keywords of its parent."""


class Empty:
    """Takes no keywords."""


def open_ended(width: int, **others: Any) -> None:
    del width, others


def unresolvable(width: int, tensor: Tensor = None, depth: int = 1) -> None:  # type: ignore[name-defined]  # noqa: F821
    del width, tensor, depth


def test_all_problems_are_listed_in_the_order_of_the_file() -> None:
    given_ = {"dropuot": 0.2, "pooling": "max", "layers": [1, "2"]}
    assert problems(Model, given_, "models.m.args") == [
        "models.m.args.dropuot: given an unknown key; expected one of dropout, folder, layers, "
        "pooling, weights, width (did you mean 'dropout'?)",
        "models.m.args.pooling: given 'max'; expected one of 'mean', 'first'",
        "models.m.args.layers: given [1, '2']; expected a list, each an integer",
        "models.m.args.width: given nothing; expected an integer",
    ]


def test_classes_and_what_they_inherit() -> None:
    assert problems(Layer, {"bias": False}, "x", skip=("root",)) == []
    assert problems(Child, {"bias": 0}, "x", skip=("root",)) == [
        "x.bias: given 0; expected true or false"
    ]
    assert problems(Empty, {"a": 1}, "x") == ["x.a: given an unknown key; expected no keys here"]


def test_what_the_caller_supplies_may_not_be_given() -> None:
    (found,) = problems(Layer, {"root": "/data"}, "corpora.c", skip=("root",), also=("folds",))
    assert found == "corpora.c.root: given an unknown key; expected one of bias, folds"


def test_any_key_is_taken_where_the_signature_takes_any() -> None:
    assert problems(open_ended, {"width": 1, "more": "x"}, "x") == []
    assert problems(open_ended, {"width": "1"}, "x") == ["x.width: given '1'; expected an integer"]


def test_one_annotation_that_cannot_be_resolved_hides_no_other() -> None:
    given_ = {"width": 1, "tensor": 5, "depth": "deep"}
    assert problems(unresolvable, given_, "") == ["depth: given 'deep'; expected an integer"]


def test_long_values_are_cut_short() -> None:
    (found,) = problems(Model, {"width": "x" * 1000}, "m")
    assert len(found) < 200


def test_ranges_change_no_completed_value() -> None:
    def bounded(*, rate: Share = 0.5, lr: Share | None = None, ends: tuple[Share, Share]) -> None:
        del rate, lr, ends

    found = completed(bounded, {"rate": 0, "lr": 0, "ends": [0, 0]})
    assert repr(found) == "{'ends': [0.0, 0.0], 'lr': 0.0, 'rate': 0.0}"


def test_many_and_long_unknown_keys_make_a_short_message() -> None:
    found = problems(Model, {"width": 1, "x" * 100_000: 1}, "m")
    assert [len(line) < 300 for line in found] == [True]
    found = problems(Model, {"width": 1, **{f"k{i}": 1 for i in range(10_000)}}, "m")
    assert (len(found), found[-1]) == (21, "m: given 10000 unknown keys in all")
    assert in_lines(["a"] * 300).splitlines()[99:] == ["a", "and 200 more"]
    assert len(in_lines(["a" * 1000] * 90)) < 17_000
    assert in_lines(["a" * 100_000, "b"]).endswith("a\nand 1 more")
    assert len(one_of("x" * 100_000, [f"name{i}" for i in range(10_000)])) < 3000


def test_keys_that_a_terminal_would_act_on_are_quoted() -> None:
    (found,) = problems(Empty, {"a\x1b[31m\n": 1}, "x")
    assert found.startswith(r"x.'a\x1b[31m\n': given an unknown key")


class Options(TypedDict):
    a: int


@pytest.mark.parametrize(
    ("hint", "good", "bad", "words"),
    [
        (int, [0, -3], [True, 1.0, "1", None], "an integer"),
        (float, [0, 1.5], [False, "1e-4", None], "a number"),
        (bool, [True, False], [0, "yes"], "true or false"),
        (str, ["", "x"], [1, None, ["x"]], "text"),
        (Path, ["a/b", Path("a")], [1, None], "a path"),
        (None, [None], [0, ""], "null"),
        (int | None, [1, None], ["1", True], "an integer or null"),
        (list[str], [[], ["a"], ("a",)], ["a", [1], None], "a list, each text"),
        (Sequence[int], [[1]], ["1", [True]], "a list, each an integer"),
        (tuple[int, str], [[1, "a"]], [[1], ["a", 1]], "a list of 2: an integer, text"),
        (list, [[1, "a"]], [1, {}], "a list"),
        (dict[str, float], [{}, {"a": 1}], [{"a": "1"}, {1: 1.0}, []], "a mapping to a number"),
        (Mapping, [{"a": []}], [[]], "a mapping"),
        (Literal[1, "a"], [1, "a"], [True, 1.0, "b"], "one of 1, 'a'"),
        (Annotated[int, "steps"], [1], ["1"], "an integer"),
        (Annotated[int, Interval(ge=1, le=8)], [1, 8], [0, 9, 2.0, True], "an integer from 1 to 8"),
        (
            Annotated[float, Interval(gt=0, le=9)],
            [1, 0.5],
            [0, -1, math.nan, math.inf, 10**5000],
            "a number above 0, at most 9",
        ),
        (
            Annotated[float, Interval(ge=0, lt=1)] | None,
            [0, 0.9, None],
            [1, "1"],
            "a number from 0 to below 1 or null",
        ),
        (Annotated[str, MinLen(1)], ["a"], ["", 1], "text, not empty"),
        (Annotated[list[str], MinLen(1)], [["a"]], [[], [1]], "a list, each text, not empty"),
        (
            list[Annotated[int, Interval(ge=0, le=1)]],
            [[0, 1]],
            [[2], 1],
            "a list, each an integer from 0 to 1",
        ),
        (Model, [Model(1)], [{"width": 1}], "a Model"),
        (list[Any], [[1, "a"]], ["ab"], "a list, each a value"),
    ],
)
def test_types(hint: Any, good: list[Any], bad: list[Any], words: str) -> None:
    def target(value: Any) -> None:
        del value

    target.__annotations__["value"] = hint
    for value in good:
        assert problems(target, {"value": value}, "w") == []
    for value in bad:
        (found,) = problems(target, {"value": value}, "w")
        assert found.startswith("w.value: given ")
        assert found.endswith(f"; expected {words}")


@pytest.mark.parametrize("hint", [Any, object, Options, "Sequence[Any]"])
def test_types_that_are_not_checked_take_lists(hint: Any) -> None:
    def target(value: Any) -> None:
        del value

    target.__annotations__["value"] = hint
    assert problems(target, {"value": [1, "a", None]}, "w") == []


SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text()


@given(st.dictionaries(st.text(), SCALARS))
def test_each_unknown_key_is_named_once(mapping: dict[str, Any]) -> None:
    mapping = {key: value for key, value in mapping.items() if key != "bias"}
    found = problems(Layer, mapping, "w", skip=("root",))
    named = list(mapping)[:MOST_UNKNOWN]
    for key, line in zip(named, found, strict=False):
        shown = key if key.isprintable() and len(key) <= 80 else quoted(key)
        assert line.startswith(f"w.{shown}: ")
    rest = [f"w: given {len(mapping)} unknown keys in all"] if len(mapping) > MOST_UNKNOWN else []
    assert found[len(named) :] == rest


@given(
    st.fixed_dictionaries(
        {"width": st.integers()},
        optional={
            "dropout": st.integers() | st.floats(),
            "pooling": st.sampled_from(["mean", "first"]),
            "layers": st.lists(st.integers()),
            "weights": st.dictionaries(st.text(), st.floats()),
            "folder": st.none() | st.text(),
        },
    ),
    st.sampled_from(["width", "dropout", "pooling", "layers", "weights", "folder"]),
)
def test_what_fits_passes_and_one_boolean_is_one_problem(mapping: Any, spoilt: str) -> None:
    assert problems(Model, mapping, "w") == []
    (found,) = problems(Model, {**mapping, spoilt: True}, "w")
    assert found.startswith(f"w.{spoilt}: given True; expected ")
