"""Progress lines of an end-to-end training, in a terminal and elsewhere."""

from __future__ import annotations

import io
import re
from functools import partial

import pytest

from features.process.terminal import LINE_SECONDS, REDRAW_SECONDS, LiveLines
from pipeline.e2e.job import run_tune_job
from pipeline.e2e.watch import Speed, peak_bytes
from tests.conftest import ManifestMaker
from tests.pipeline.e2e.test_resume import Make, make, not_kept

__all__ = ["make"]  # a fixture


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


STEP_LINE = re.compile(
    r"test seed 3 fold 0: epoch (\d)/3 step (\d)/3, loss \d\.\d{3}, [\d.]+ utterances/s, "
    r"[\d.]+ s of audio/s, \d+\.\d GiB at most$"
)
CHECK_LINE = re.compile(r"test seed 3 fold 0: epoch (\d)/3 validation, 2 utterances, ")


@pytest.mark.slow
def test_lines_show_step_loss_speed_and_memory(make: Make) -> None:
    lines: list[str] = []
    job = not_kept(make("out"))
    run_tune_job(job, lambda text, **_: lines.append(text), every=0.0)
    steps = [match.groups() for text in lines if (match := STEP_LINE.match(text))]
    assert steps == [(str(epoch), str(step)) for epoch in (1, 2, 3) for step in (1, 2, 3)]
    assert len([text for text in lines if CHECK_LINE.match(text)]) == 3
    lines.clear()
    run_tune_job(job, lambda text, **_: lines.append(text))
    assert len(lines) == 3 + 1  # an epoch each, and which was kept


def test_in_a_terminal_epochs_stay_and_steps_are_redrawn(make: Make) -> None:
    screen = Terminal()
    lines = LiveLines(screen)
    run_tune_job(not_kept(make("out")), partial(lines.show, 0), every=0.0)
    stay = re.sub(r"\x1b\[\d+F\x1b\[0J", "\f", screen.getvalue())
    # What is left when all that was redrawn is gone.
    while "\f" in stay:
        stay = re.sub(r"(?:^|(?<=\n))[^\n\f]*\n\f", "", stay, count=1)
    left = [line.removeprefix("\x1b[0J") for line in stay.splitlines()]
    assert [line.split(",")[0] for line in left] == [
        *(f"test seed 3 fold 0: epoch {number}/3" for number in (1, 2, 3)),
        left[-1].split(",")[0],
    ]
    assert "kept epoch" in left[-1]


def test_lines_are_seldom_elsewhere() -> None:
    assert LiveLines(Terminal()).every == REDRAW_SECONDS
    assert LiveLines(io.StringIO()).every == LINE_SECONDS


def test_speed_is_of_what_was_done_since_the_last_line(
    make_manifest: ManifestMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr("pipeline.e2e.watch.time.monotonic", lambda: clock[0])
    manifest = make_manifest([0.5, 1.5])
    speed = Speed({utterance.id: utterance for utterance in manifest})
    speed.add(("u0", "u1"))
    clock[0] = 4.0
    assert speed.text() == "0.5 utterances/s, 0.5 s of audio/s"
    speed.restart()
    clock[0] = 5.0
    speed.add(("u1",))
    assert speed.text() == "1.0 utterances/s, 1.5 s of audio/s"


def test_memory_is_that_of_this_process() -> None:
    held = bytearray(50 * 2**20)
    assert len(held) < peak_bytes("cpu") < 2**38
