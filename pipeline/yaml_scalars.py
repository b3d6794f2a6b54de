"""YAML as DVC reads and writes it: version 1.2's core scalars, on top of PyYAML.

PyYAML follows YAML 1.1, where `5e-05` is a string and `no` is false. DVC writes params.yaml by
YAML 1.2, so that `-S train.lr=5e-5` would come back as a string.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import IO, Any

import yaml

from features.errors import ParamsError

SCALARS = (
    ("tag:yaml.org,2002:null", r"~|null|Null|NULL|", "~nN\0"),
    ("tag:yaml.org,2002:bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("tag:yaml.org,2002:int", r"[-+]?[0-9]+", "-+0123456789"),
    (
        "tag:yaml.org,2002:float",
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
)


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's core scalars, which refuses a key given twice."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> Any:  # noqa: FBT001, FBT002
        """A mapping; a key that occurs twice is an error, not the last one's value."""
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} occurs twice", node.start_mark
                )
        return super().construct_mapping(node, deep)


for _tag, _pattern, _first in SCALARS:
    _Loader.add_implicit_resolver(
        _tag, re.compile(f"^(?:{_pattern})$"), ["" if c == "\0" else c for c in _first]
    )
# PyYAML's own constructors read 010 as octal and 1:30 as sexagesimal; YAML 1.2 does neither.
_Loader.add_constructor("tag:yaml.org,2002:int", lambda _, node: int(node.value))
_Loader.add_constructor("tag:yaml.org,2002:float", lambda _, node: _float(node.value))


def read_yaml(source: str | IO[str]) -> Any:
    """Parse one document.

    >>> read_yaml("{lr: 5e-05, answer: no, epochs: 20, fusion: null}")
    {'lr': 5e-05, 'answer': 'no', 'epochs': 20, 'fusion': None}
    """
    return yaml.load(source, _Loader)  # a SafeLoader


def read_params_file(path: Path) -> dict[str, Any]:
    """params.yaml as a plain mapping, unchecked; for stages that must start in no time.

    Raises:
        ParamsError: If the file is missing, no YAML or no mapping.
    """
    try:
        raw = read_yaml(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ParamsError(
            f"cannot read {path} ({error.strerror}); run this in the project's folder"
        ) from error
    except yaml.YAMLError as error:
        raise ParamsError(f"{path} is no YAML: {error}") from error
    if not isinstance(raw, dict):
        raise ParamsError(f"{path} holds {type(raw).__name__}; expected a mapping")
    return raw


def _float(text: str) -> float:
    return float(text.lower().replace(".inf", "inf").replace(".nan", "nan"))
