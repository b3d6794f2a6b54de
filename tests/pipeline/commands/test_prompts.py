"""`heronry prompts` says what is wrong with its folder before anything runs."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from features.errors import ParamsError
from pipeline.commands.add import add
from pipeline.commands.experiments import prompts as command
from tests.support.known_params import SHIPPED

RIGHT = "[user]\n<classes>?\n"


@pytest.mark.parametrize(
    ("files", "complaint"),
    [
        ({"one.txt": RIGHT}, "holds 1 files"),
        ({"one.txt": RIGHT, "t wo.txt": RIGHT}, r"given \['them/t wo.txt'\]; expected letters"),
        ({"one.txt": RIGHT, "two,three.txt": RIGHT}, "rename them"),
        ({"one.txt": RIGHT, "two.txt": "[user]\n<Classes>?\n"}, "did you mean '<classes>'"),
    ],
)
def test_what_is_refused_before_anything_runs(
    files: dict[str, str], complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(SHIPPED, "params.yaml")
    add("speech_llm", "speech_endpoint")
    monkeypatch.setattr(command, "run", lambda *_, **__: pytest.fail("something ran"))
    Path("them").mkdir()
    for name, text in files.items():
        Path("them", name).write_text(text)
    with pytest.raises(ParamsError, match=complaint):
        command.prompts("speech_endpoint", Path("them"))
