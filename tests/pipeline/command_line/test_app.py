"""`heronry`: quick help and completion, examples that parse, versions of Python, the script."""

from __future__ import annotations

import importlib
import json
import os
import shlex
import signal
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from features.process import interrupts
from pipeline.command_line import app as command_line
from pipeline.command_line.app import app
from pipeline.compare import flips, significance
from tests.support.paths import ROOT

PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
SLOW = ("torch", "numpy", "pyarrow", "matplotlib", "h5py", "scipy", "jinja2", "dvc")
QUICK = f"""
import os, sys
from pipeline.__main__ import main
sys.argv = ["heronry", *sys.argv[1:]]
try:
    main()
except SystemExit as end:
    assert not end.code, end.code
found = [name for name in {SLOW!r} if name in sys.modules]
assert not found, found
"""


def quick(*words: str, folder: Path = ROOT, **environment: str) -> str:
    """Output of a command that must import none of the slow packages."""
    done = subprocess.run(
        [sys.executable, "-c", QUICK, *words],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def complete(line: str, folder: Path = ROOT) -> list[str]:
    """What bash offers in place of the last word of a command line."""
    words = line.split(" ")
    asked = {"COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    return quick(folder=folder, _HERONRY_COMPLETE="complete_bash", **asked).split()


def test_help_version_and_recipe_import_nothing_slow(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    assert "board" in quick("--help", folder=tmp_path / "below")
    assert quick("--version") == f"heronry {PROJECT['version']}\n"
    assert quick("recipe", "heron_no_level1", "--settings").startswith("-S ")
    for words in ("board", "check", "cache import", "share setup"):
        assert "Example: heronry" in quick(*words.split(), "--help")


def test_a_shell_completes_commands_and_entries(tmp_path: Path) -> None:
    assert complete("heronry che") == ["check"]
    assert complete("heronry build hc") == ["hcam"]
    assert complete("heronry build --corpus m") == ["mine"]
    assert complete("heronry cache export demo minilm_") == ["minilm_mean"]
    assert complete("heronry recipe heron_n") == ["heron_no_level1"]
    assert complete("heronry add mod") == ["model"]
    # text is in the catalogue, and heron, which params.yaml has, is not offered
    assert complete("heronry add model t") == ["text"]
    assert "heron" not in complete("heronry add model ")
    (tmp_path / "reports").mkdir()
    numbers = {"run_fusion": "heron", "valid_uar": 0.5, "uar": 0.5}
    (tmp_path / "reports" / "metrics.json").write_text(json.dumps(numbers))
    assert complete("heronry board --metric ", tmp_path) == ["valid_uar", "uar"]
    assert complete("heronry build ", tmp_path) == []


def test_a_shell_completes_what_has_been_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("runs/cached/demo/heron/run.json", "cache/demo/minilm/shard-00000.h5"):
        Path(name).parent.mkdir(parents=True)
        Path(name).touch()
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    identity = ("-c", "user.name=test", "-c", "user.email=test@example.org")
    subprocess.run(["git", "init", "-q"], check=True)
    subprocess.run(["git", *identity, "commit", "-q", "--allow-empty", "-m", "Start"], check=True)
    ref = f"refs/exps/{'ab'}/{'c' * 38}/heron-demo-2"
    subprocess.run(["git", "update-ref", ref, "HEAD"], check=True)
    made = ["workspace", "heron-demo-2", "runs/cached/demo/heron"]
    assert complete("heronry compare ", tmp_path) == made
    assert complete("heronry join heron-demo-2 run", tmp_path) == made[2:]
    assert complete("heronry doctor ", tmp_path) == ["cache/demo/minilm"]
    assert complete("heronry cache verify ca", tmp_path) == ["cache/demo/minilm"]
    assert complete("heronry board --unit ", tmp_path) == ["speaker", "dialogue"]


def test_bash_itself_completes_by_the_installed_script(tmp_path: Path) -> None:
    program = "import sys; sys.argv[0] = 'heronry'; from pipeline.__main__ import main; main()"
    words = (f"PYTHONPATH={ROOT}", sys.executable, "-c", program)
    (tmp_path / "heronry").write_text(f'#!/bin/sh\nexec env {shlex.join(words)} "$@"\n')
    (tmp_path / "heronry").chmod(0o755)
    typed = """
source <(_HERONRY_COMPLETE=source_bash heronry)
for line in "heronry bui" "heronry run --corpus m" "heronry run -S train.clip"; do
    COMP_WORDS=($line); COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
    _heronry_completion heronry
    echo "${COMPREPLY[@]}"
done
"""
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        ["bash", "-c", typed],
        cwd=ROOT,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.split() == ["build", "mine", "train.clip_norm="], done.stderr


def test_zsh_is_offered_the_same() -> None:
    """By the lines that zsh's completion evaluates; its script sets these variables."""
    script = quick(_HERONRY_COMPLETE="source_zsh")
    assert "#compdef heronry" in script
    for typed, offered in (
        ("heronry build hc", '(("hcam"))'),
        ("heronry run --corpus m", '(("mine"))'),
        ("heronry recipe heron_n", '(("heron_no_level1"))'),
    ):
        said = quick(_HERONRY_COMPLETE="complete_zsh", _TYPER_COMPLETE_ARGS=typed)
        assert offered in said


def commands(app: Any, *names: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    """Every command, with the words that call it."""
    for name, command in getattr(app, "commands", {}).items():
        yield from commands(command, *names, name)
    if names and not hasattr(app, "commands"):
        yield names, app


def test_every_command_has_an_example_that_parses() -> None:
    found = list(commands(typer.main.get_command(app)))
    assert len(found) > 15
    for names, command in found:
        program, *words = shlex.split(command.epilog.removeprefix("Example: "))
        assert (program, *words[: len(names)]) == ("heronry", *names)
        command.make_context(names[-1], words[len(names) :])


def test_every_argument_has_a_metavar_and_a_help() -> None:
    for names, command in commands(typer.main.get_command(app)):
        for each in command.params:
            assert each.help, (names, each.name)
            assert not each.help.startswith(("The ", "A number of")), each.help
            if each.param_type_name == "argument":
                assert each.metavar.isupper(), (names, each.name)


def test_one_thing_has_one_spelling() -> None:
    spelt = {"corpus": "CORPUS", "runs": "RUN", "seeds": "N", "settings": "KEY=VALUE"}
    spelt |= {"fusion": "MODEL", "models": "MODEL", "folders": "FOLDER", "out": "FOLDER"}
    spelt |= {"backbone": "BACKBONE", "backbones": "BACKBONE"}
    found = set()
    for names, command in commands(typer.main.get_command(app)):
        for each in command.params:
            if each.metavar is not None and each.name in spelt:
                found.add(each.name)
                assert each.metavar == spelt[each.name], (names, each.name)
    assert found == set(spelt)


def test_printed_defaults_are_those_of_a_comparison() -> None:
    assert command_line.FLIPS == flips.SHOWN
    assert command_line.PERMUTATIONS == significance.PERMUTATIONS
    assert command_line.LEAST_PERMUTATIONS == significance.LEAST_PERMUTATIONS


def test_the_console_script_is_the_module_program() -> None:
    module, _, name = PROJECT["scripts"]["heronry"].partition(":")
    assert module == "pipeline.__main__"
    assert callable(getattr(importlib.import_module(module), name))


def test_another_python_is_refused_before_anything_is_imported(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lowest, beyond = (
        tuple(map(int, bound.strip("<>=").split(".")))
        for bound in PROJECT["requires-python"].split(",")
    )
    assert lowest == interrupts.PYTHONS[0]
    assert beyond == (3, interrupts.PYTHONS[-1][1] + 1)
    monkeypatch.setattr(interrupts, "PYTHONS", ((3, 98), (3, 99)))
    for program in ("-m", "/somewhere/bin/heronry"):
        monkeypatch.setattr(sys, "argv", [program])
        with pytest.raises(SystemExit, match=r"this is Python 3.*; expected 3\.98 or 3\.99: make"):
            interrupts.listen("pipeline", {"": "nothing"}, script="heronry")


def test_a_signal_while_a_command_imports_ends_at_once_and_later_raises() -> None:
    before = interrupts._State.running
    interrupts.imported()
    try:
        with interrupts.importing():
            assert not interrupts._State.running
        assert interrupts._State.running
    finally:
        interrupts._State.running = before


def test_the_script_handles_signals_as_the_module_does(monkeypatch: pytest.MonkeyPatch) -> None:
    handled: list[int] = []
    monkeypatch.setattr(signal, "signal", lambda number, _: handled.append(number))
    monkeypatch.setattr(signal, "getsignal", lambda _: signal.SIG_DFL)
    monkeypatch.setattr(interrupts._State, "kept", "")
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/pytest"])
    interrupts.listen("pipeline", {"": "all is kept"}, script="heronry")
    assert not handled
    monkeypatch.setattr(sys, "argv", ["/somewhere/bin/heronry"])
    interrupts.listen("pipeline", {"": "all is kept"}, script="heronry")
    assert handled == [signal.SIGINT, signal.SIGTERM]
    assert interrupts._State.kept == "all is kept"


def test_a_misspelt_command_is_answered_with_those_like_it() -> None:
    done = CliRunner().invoke(app, ["chek"])
    assert done.exit_code == 2
    assert "check" in done.output
