"""Faulty JSON raises `ValueError`, and readers of files turn it into a message."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.cache.guard import read_object as read_attribute
from features.corpus.utterance import Utterance
from features.errors import HeronryError
from features.files.json_text import Decoder, parse_json
from features.files.records import read_json, read_rows
from features.weights.checks import read_object as read_config
from features.weights.tensors import parts_of

DEEP = '{"a": ' * 100_000
WRONG = [
    DEEP,
    "[" * 100_000 + "]" * 100_000,
    '{"a": ' + "9" * 5000 + "}",
    '{"a": -' + "9" * 301 + "}",
    "{",
    "",
    '{"a": 1} {"b": 2}',
]
SCALARS = st.none() | st.booleans() | st.floats(allow_nan=False) | st.text()
VALUES = st.recursive(
    SCALARS | st.integers(-(10**290), 10**290),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@pytest.mark.parametrize("text", WRONG)
@pytest.mark.parametrize("parse", [parse_json, Decoder(object_pairs_hook=dict).decode])
def test_faulty_json_raises_value_error(text: str, parse: Callable[[str], Any]) -> None:
    with pytest.raises(ValueError, match=r".") as caught:
        parse(text)
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("content", [b"\xff", "{}".encode("utf-16"), b'"\xe9"'])
def test_bytes_are_utf_8(content: bytes) -> None:
    with pytest.raises(ValueError, match="utf-8"):
        parse_json(content)


@given(VALUES)
def test_json_is_read_as_written(value: Any) -> None:
    assert parse_json(json.dumps(value)) == value
    assert parse_json(json.dumps(value, ensure_ascii=False).encode()) == value


def test_any_integer_that_is_read_is_a_finite_float() -> None:
    assert math.isfinite(float(parse_json("-" + "9" * 299)))


@pytest.mark.parametrize("text", WRONG)
def test_readers_name_the_faulty_file(tmp_path: Path, text: str) -> None:
    path = tmp_path / "some.json"
    path.write_text(text)
    for read in (read_json, read_config, parts_of):
        with pytest.raises(HeronryError) as caught:
            read(path)
        assert str(path) in str(caught.value)
    path.write_text(text + "\n")
    with pytest.raises(HeronryError, match=r"some\.json, line 1: "):
        list(read_rows(path, Utterance))
    with pytest.raises(ValueError, match=r"."):
        read_attribute(text)
