"""A browser shows the page: in light and dark, wide and narrow, without a word of complaint."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from pipeline.report.evaluate import evaluate, write_report
from pipeline.report.page import page
from tests.pipeline.report.test_page import whole_run
from tests.support.runs.fake_run import FakeRun

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run")
OFFLINE = (
    "--hide-scrollbars",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    *("--enable-logging=stderr", "--v=0"),
)


def browse(folder: Path, *arguments: str) -> str:
    """Run Chromium; returns what it logs of the page's console."""
    profile = f"--user-data-dir={folder / 'profile'}"
    command = [str(CHROMIUM), *QUIET, *OFFLINE, profile, *arguments]
    done = subprocess.run(command, check=True, capture_output=True, timeout=120)
    return "\n".join(x for x in done.stderr.decode().splitlines() if "CONSOLE" in x)


needs_browser = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium found: apt-get install chromium"
)


@pytest.mark.browser
@needs_browser
def test_a_browser_shows_the_page(tmp_path: Path) -> None:
    fake = FakeRun(tmp_path).write()
    reports = write_report(evaluate(fake.run, fake.data), tmp_path / "reports")
    picture = tmp_path / "page.png"
    target = (f"--screenshot={picture}", "--window-size=1240,2600", reports.as_uri())
    assert browse(tmp_path, *target) == ""
    pixels = matplotlib.image.imread(picture)[..., :3]
    assert pixels.shape == (2600, 1240, 3)
    paper = np.all(pixels > 0.98, axis=-1)
    assert 0.5 < paper.mean() < 0.97
    # --accent of the light theme, #1f5fa8, fills the bars below the reliability plots
    bars = np.abs(pixels - np.array([0x1F, 0x5F, 0xA8]) / 255).max(-1) < 0.01
    assert bars.sum() > 500
    # something is drawn in every fifth of the page, and nothing in its margins
    assert all((~part).any() for part in np.array_split(paper, 5))
    assert paper[:, :40].all()
    assert paper[:, -40:].all()


@pytest.mark.browser
@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize("width", [360, 1100])
def test_only_tables_scroll_sideways(tmp_path: Path, width: int) -> None:
    """Measured by a page around it, since the page itself forbids scripts."""
    whole = whole_run(tmp_path)
    html = page(evaluate(whole.run, whole.data)).replace("<details", "<details open")
    (tmp_path / "index.html").write_text(html, encoding="utf-8")
    ask = (
        f"<iframe id=f style='width:{width}px;height:900px;border:0' src=index.html></iframe>"
        "<script>f.onload = () => console.log('wide ' + "
        "f.contentDocument.documentElement.scrollWidth)</script>"
    )
    around = tmp_path / "around.html"
    around.write_text(ask, encoding="utf-8")
    picture = f"--screenshot={tmp_path / 'page.png'}"
    files = "--allow-file-access-from-files"
    found = browse(tmp_path, files, picture, "--window-size=1300,1000", around.as_uri())
    assert re.findall(r"wide (\d+)", found) == [str(width)]
    assert found.count("CONSOLE") == 1


@pytest.mark.browser
@pytest.mark.slow
@needs_browser
def test_the_dark_theme_is_dark(tmp_path: Path) -> None:
    fake = FakeRun(tmp_path).write()
    reports = write_report(evaluate(fake.run, fake.data), tmp_path / "reports")
    picture = tmp_path / "page.png"
    dark = ("--blink-settings=preferredColorScheme=0", "--window-size=1100,1600")
    assert browse(tmp_path, *dark, f"--screenshot={picture}", reports.as_uri()) == ""
    pixels = matplotlib.image.imread(picture)[..., :3]
    ground = np.abs(pixels - np.array([0x14, 0x18, 0x1E]) / 255).max(-1) < 0.01
    assert 0.5 < ground.mean() < 0.97
