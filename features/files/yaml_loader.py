"""Loader of PyYAML with the core scalars of YAML 1.2 that refuses what no parameter file needs.

PyYAML follows YAML 1.1, where `5e-05` is a string and `no` is false. DVC writes params.yaml by
YAML 1.2, so that the value of `-S train.lr=5e-5` would be read as a string.

Refused with its line, so that reading takes bounded time and memory: tags, merge keys, keys that
are not text or occur twice, aliases that multiply the document, deep nesting, integers of more than
64 bits.
"""

from __future__ import annotations

import re
from typing import Any

import yaml
from yaml.constructor import ConstructorError
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

MOST_COPIES = 100_000  # values of a document that aliases add to those written
DEEPEST = 40  # levels of nesting
MOST_DIGITS = 18  # digits of an integer: any such number fits 64 bits
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
_NO_CHARACTER = re.compile("[\0\ud800-\udfff]")
_TEXT = "tag:yaml.org,2002:str"


class Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's core scalars that refuses what no parameter file needs."""

    yaml_implicit_resolvers: dict[str, list[tuple[str, re.Pattern[str]]]] = {}  # noqa: RUF012

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.depth = 0
        self.extents: dict[Node, tuple[int, int]] = {}  # values and levels of finished nodes

    def compose_node(self, parent: Node | None, index: int) -> Node | None:
        """Compose a node that has no tag and is neither large nor deep, aliases expanded."""
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        alias = isinstance(event, yaml.AliasEvent)
        if not alias and event.tag is not None:
            tag = cut(event.tag.replace("tag:yaml.org,2002:", "!!"))
            raise _refusal(f"the tag {tag}; expected a value without one", event)
        self._check_depth(1, event)
        self.depth += 1
        node: Any = super().compose_node(parent, index)
        self.depth -= 1
        # Nodes are counted with aliases expanded: nine lines of ten aliases each ("billion laughs")
        # would otherwise become a billion values.
        if not alias:
            parts = [self.extents[child] for child in _children(node)]
            values, levels = (
                1 + sum(part[0] for part in parts),
                max((p[1] for p in parts), default=0),
            )
            self.extents[node] = values, 1 + levels
        elif node not in self.extents:
            raise _refusal(f"the alias *{cut(event.anchor)} inside of what it stands for", event)
        values, levels = self.extents[node]
        self._check_depth(levels, event)
        if values > MOST_COPIES + len(self.extents):
            raise _refusal(f"aliases that stand for more than {MOST_COPIES} values", event)
        return node  # type: ignore[no-any-return]

    def _check_depth(self, levels: int, at: Any) -> None:
        if self.depth + levels > DEEPEST:
            raise _refusal(f"more than {DEEPEST} levels of nesting", at)

    def construct_mapping(self, node: MappingNode, deep: bool = False) -> Any:  # noqa: FBT001, FBT002
        """Construct a mapping with text keys; a repeated key is an error."""
        seen = set()
        for key, _ in node.value:
            if not isinstance(key, ScalarNode) or key.tag != _TEXT:
                given = cut(key.value) if isinstance(key, ScalarNode) else f"({key.id})"
                raise _refusal(f"the key {given}; expected text (a number in quotes is one)", key)
            if key.value == "<<":
                raise _refusal("the merge key <<, which YAML 1.2 has not; write its keys out", key)
            if key.value in seen:
                raise _refusal(f"key {cut(key.value)!r} occurs twice", key)
            seen.add(key.value)
        return super().construct_mapping(node, deep)

    def construct_scalar(self, node: ScalarNode | MappingNode) -> Any:
        """Construct a text; NUL and half a surrogate pair, which no path can hold, are errors."""
        text = super().construct_scalar(node)
        if _NO_CHARACTER.search(text):
            raise _refusal("NUL, or half of a surrogate pair; expected whole characters", node)
        return text

    def construct_integer(self, node: ScalarNode) -> int:
        """Construct a decimal integer; PyYAML would read 010 as octal and 1:30 as sexagesimal."""
        if len(node.value) > MOST_DIGITS:
            raise _refusal(
                f"an integer of {len(node.value)} digits; expected {MOST_DIGITS} at most", node
            )
        return int(node.value)

    def construct_number(self, node: ScalarNode) -> float:
        """Construct a float, `.inf` and `.nan` among them."""
        return float(node.value.lower().replace(".inf", "inf").replace(".nan", "nan"))


# PyYAML tries a pattern only on scalars with one of its first characters; "" is the empty scalar.
for _tag, _pattern, _first in SCALARS:
    Loader.add_implicit_resolver(
        _tag, re.compile(f"^(?:{_pattern})$"), ["" if c == "\0" else c for c in _first]
    )
Loader.add_constructor("tag:yaml.org,2002:int", Loader.construct_integer)
Loader.add_constructor("tag:yaml.org,2002:float", Loader.construct_number)


def _refusal(problem: str, at: Any) -> ConstructorError:
    return ConstructorError(None, None, problem, at.start_mark)


def _children(node: Node) -> list[Node]:
    if isinstance(node, MappingNode):
        return [child for pair in node.value for child in pair]
    return node.value if isinstance(node, SequenceNode) else []


def cut(text: str, most: int = 60) -> str:
    """Text on one line of bounded length, as messages show it."""
    shown = text if text.isprintable() else repr(text)[1:-1]
    return shown if len(shown) <= most else shown[: most - 3] + "..."
