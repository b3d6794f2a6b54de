"""Status lines of trainings: plain in a log, redrawn in a terminal."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

from features.process.terminal import LiveLines
from pipeline.cached.run import run_job
from pipeline.runtime.pool import run_jobs
from tests.pipeline.training.test_loop import job_of, labels_of, write_cache


class Terminal(io.StringIO):
    """Emulates a terminal's screen for the two control sequences in use."""

    def isatty(self) -> bool:
        return True

    def screen(self) -> list[str]:
        rows: list[str] = []
        for up, clear, text in re.findall(
            r"\x1b\[(\d+)F|(\x1b\[0J)|([^\n\x1b]*\n)", self.getvalue()
        ):
            if up:
                rows, gone = rows[: -int(up)], rows[-int(up) :]
            elif not clear:
                rows.append(text.rstrip("\n"))
                gone = []
            assert clear or not up or gone
        return rows


def test_a_log_gets_every_line() -> None:
    log = io.StringIO()
    lines = LiveLines(log)
    for number in range(3):
        lines.show(0, f"epoch {number}")
    lines.show(0, "kept", done=True)
    assert log.getvalue().splitlines() == ["epoch 0", "epoch 1", "epoch 2", "kept"]


def test_a_terminal_has_one_line_a_training() -> None:
    terminal = Terminal()
    lines = LiveLines(terminal)
    lines.show(0, "a 1")
    lines.show(1, "b 1")
    lines.show(0, "a 2")
    assert terminal.screen() == ["a 2", "b 1"]
    lines.show(0, "a kept", done=True)
    lines.show(2, "c 1")
    lines.show(1, "b 2")
    assert terminal.screen() == ["a kept", "b 2", "c 1"]
    lines.show(1, "b kept", done=True)
    lines.show(2, "c kept", done=True)
    assert terminal.screen() == ["a kept", "b kept", "c kept"]


def test_long_lines_are_cut_since_a_wrapped_one_is_two(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    terminal = Terminal()
    LiveLines(terminal).show(0, "x" * 50)
    assert terminal.screen() == ["x" * 19]


def test_a_training_prints_each_epoch_and_the_kept_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_cache(tmp_path / "text", labels_of(), 3.0, 0)
    jobs = [job_of({"text": tmp_path / "text"}, tmp_path / str(s), s, epochs=2) for s in range(2)]
    list(run_jobs(run_job, jobs, workers=1))
    lines = capsys.readouterr().err.splitlines()
    for seed in range(2):
        mine = [line.partition("fold 0: ")[2] for line in lines if f"seed {seed} " in line]
        starts = ["epoch 1/2,", "epoch 2/2,", "kept epoch "]
        assert all(line.startswith(start) for line, start in zip(mine, starts, strict=True))
    assert len(lines) == 6
