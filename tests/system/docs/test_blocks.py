"""Every code block of README and docs/ is run, or says why not; every command in them exists."""

from __future__ import annotations

import contextlib
import re
import shlex
import textwrap
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.core import TyperGroup

from features.files.yaml_text import read_yaml
from pipeline.command_line.app import app
from tests.support.known_params import known_raw
from tests.support.markdown import Block, blocks_in, blocks_of, code_in_lines, pages
from tests.support.paths import ROOT
from tests.system.docs.test_pages import RUN

LANGUAGES = ("python", "bash", "yaml", "csv", "console", "text")
RUNNABLE = ("python", "bash")
ALL = [block for page in pages() for block in blocks_of(page)]
KNOWN = known_raw()


def of(*languages: str) -> dict[str, Any]:
    """Arguments of `parametrize`: the blocks in some languages."""
    found = [block for block in ALL if block.language in languages]
    return {"argvalues": found, "ids": [block.place for block in found]}


def test_every_block_is_run_or_says_why_not() -> None:
    for block in ALL:
        assert block.language in LANGUAGES, block.place
        if block.mark == "run by":
            assert block.page in (ROOT / block.words).read_text(encoding="utf-8"), block.place
        elif block.mark in ("file", "entry") or (not block.mark and block.language in RUNNABLE):
            assert block.page in RUN, f"{block.place}: add its page to RUN, or a comment above it"


@pytest.mark.parametrize("page", pages())
def test_every_comment_is_above_a_block(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    assert text.count("<!--") == sum(block.mark is not None for block in blocks_of(page))


def test_a_comment_holds_for_the_block_right_below_it() -> None:
    text = "- x\n\n  <!-- run by: b -->\n  ```bash\n  c\n  ```\n"
    (block,) = blocks_in(text, "page")
    assert (block.mark, block.words, block.language, block.code) == ("run by", "b", "bash", "c\n")
    (block,) = blocks_in("<!-- not run: a -->\n\nwords\n\n```text\nd\n```\n", "page")
    assert block.mark is None


# Behind the start of a line, a prompt, an operator, and variables that are set for one command.
_CALL = re.compile(r"(?:^|\$ |&&|[;|(]|\bdo)\s*(?:\w+=\S+ +)*heronry ([^|;&)\n]*)", re.MULTILINE)


def calls(code: str) -> Iterator[list[str]]:
    """Words of each call of heronry in a block."""
    for line in _CALL.findall(code.replace("\\\n", " ")):
        yield shlex.split(line, comments=True)


def check_call(words: list[str]) -> None:
    """Raise for a command, option or value that heronry does not take; nothing is called."""
    command, rest = typer.main.get_command(app), words
    context = typer.Context(command, info_name="heronry")
    while isinstance(command, TyperGroup) and rest and not rest[0].startswith("-"):
        name, *rest = rest
        assert name in command.commands, f"heronry has no command {name}"
        command = command.commands[name]
    if isinstance(command, TyperGroup):  # `--version` and such would act at once
        assert {*rest} <= {"--help", *(name for option in command.params for name in option.opts)}
    else:
        command.make_context("heronry", list(rest), parent=context)


@pytest.mark.parametrize("block", **of("bash", "console"))
def test_commands_exist_with_their_options(block: Block) -> None:
    for words in calls(block.code):
        check_call(words)


@pytest.mark.parametrize("page", pages())
def test_commands_between_backticks_exist(page: str) -> None:
    """Arguments may be missing, or placeholders."""
    for code in code_in_lines(page):
        for words in calls(code.replace("<command>", "check")):
            with contextlib.suppress(typer.BadParameter):
                check_call(words)
        check_settings(code)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("heronry ran heron", "has no command ran"),
        ("heronry run heron --seed 1", "No such option: --seed"),
        ("$ heronry cache list --json x", "unexpected extra argument"),
        ("heronry --verson", "--verson"),
        ("a && X=1 heronry run --seeds one", "valid integer"),
    ],
)
def test_a_command_that_is_not_there_is_found(line: str, message: str) -> None:
    (words,) = calls(line)
    with pytest.raises(Exception, match=message):
        check_call(words)


def check_settings(code: str) -> None:
    """Raise for `-S key=value` without such a key; a new one is written `+key=value`."""
    for key in re.findall(r"-S '?([a-z][\w.]*)=", code):
        level: Any = KNOWN
        for name in key.split("."):
            assert name in level, key
            level = level[name]


@pytest.mark.parametrize("block", **of("bash", "console"))
def test_settings_exist(block: Block) -> None:
    check_settings(block.code)


@pytest.mark.parametrize("block", **of("yaml"))
def test_yaml_is_what_params_can_hold(block: Block) -> None:
    assert isinstance(read_yaml(textwrap.dedent(block.code)), dict)


@pytest.mark.parametrize("block", **of("python"))
def test_python_compiles(block: Block) -> None:
    compile(block.code, block.place, "exec")
