"""A browser shows the page: in light and dark, wide and narrow, without a word of complaint."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import re
import shutil
import subprocess
import tarfile
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest

from pipeline.compare.comparison import Settings
from pipeline.compare.page import as_html, sections
from pipeline.report.evaluate import evaluate, evaluate_any, write_report
from pipeline.report.page import page
from pipeline.report.targets.page import target_page
from pipeline.report.targets.record import TargetReport
from tests.pipeline.report.test_page import whole_run
from tests.support.runs.fake_run import FakeRun
from tests.support.runs.fake_targets import FakeTargets
from tests.support.runs.predicted_runs import FakePredictions, compare_runs

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run")
OFFLINE = (
    "--hide-scrollbars",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    *("--enable-logging=stderr", "--v=0"),
)

AXE = "axe-core@4.14.1"
AXE_SHA512 = (
    "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="
)
# Rules of WCAG 2.2, levels A and AA. The page's own frame says what was found.
CHECK = """<script src="axe.min.js"></script><script>
const rules = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa"];
axe.run({runOnly: rules, resultTypes: ["violations"]}).then(found => console.log("axe " +
  JSON.stringify([location.hash, found.passes.length, found.violations.map(each =>
    each.id + ": " + each.nodes.map(node => node.html).slice(0, 3).join(" "))]) + " end"));
</script></body>"""
FAULTY = """<!DOCTYPE html><html><head><title>x</title><style></style></head><body>
<p style="color:#999;background:#aaa">grey on grey</p><img src="x.png"></body></html>"""


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


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Pages with long names, and all that may be folded open."""
    root = tmp_path_factory.mktemp("pages")
    whole = whole_run(root)
    runs = [FakePredictions(skill=skill, draw=1) for skill in (0.4, 0.7)]
    paths = [run.write(root / f"{'long' * 20}{run.skill}/predictions.csv") for run in runs]
    report = page(evaluate(whole.run, whole.data), experiment="a-name")
    learns = FakeTargets(root / "targets", folds=3, facts=True, speaker_name="speaker" * 9 + "{}")
    targets = evaluate_any(learns.write().run, learns.data)
    assert isinstance(targets, TargetReport)
    return {
        "report": report.replace("<details", "<details open"),
        "targets": target_page(targets).replace("<details>", "<details open>"),
        "compare": as_html(
            paths, sections(compare_runs(paths, Settings(permutations=200, flips=3)))
        ),
    }


@pytest.mark.browser
@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize("width", [360, 1100])
def test_only_tables_scroll_sideways(pages: dict[str, str], tmp_path: Path, width: int) -> None:
    """Measured by a page around them, since the pages themselves forbid scripts."""
    ask = ""
    for name, html in pages.items():
        (tmp_path / f"{name}.html").write_text(html, encoding="utf-8")
        ask += (
            f"<iframe id={name} style='width:{width}px;height:900px;border:0' src={name}.html>"
            f"</iframe><script>{name}.onload = () => console.log('wide {name} ' + "
            f"{name}.contentDocument.documentElement.scrollWidth)</script>"
        )
    around = tmp_path / "around.html"
    around.write_text(ask, encoding="utf-8")
    picture = f"--screenshot={tmp_path / 'page.png'}"
    files = "--allow-file-access-from-files"
    found = browse(tmp_path, files, picture, "--window-size=1300,2000", around.as_uri())
    widths = dict(re.findall(r"wide (\w+) (\d+)", found))
    assert widths == dict.fromkeys(pages, str(width))
    assert found.count("CONSOLE") == len(pages)


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


def axe(folder: Path) -> str:
    """Source of axe-core, fetched by npm and checked."""
    npm = shutil.which("npm")
    if npm is None:
        pytest.skip("no npm found: apt-get install npm")
    command = [npm, "pack", "--silent", AXE]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    if done.returncode:
        pytest.skip(f"npm cannot fetch {AXE}: {done.stderr.strip()[-300:]}")
    packed = (folder / done.stdout.strip()).read_bytes()
    assert base64.b64encode(hashlib.sha512(packed).digest()).decode() == AXE_SHA512
    with tarfile.open(fileobj=io.BytesIO(packed)) as files:
        source = files.extractfile("package/axe.min.js")
        assert source is not None
        return source.read().decode()


@pytest.mark.browser
@pytest.mark.slow
@needs_browser
def test_pages_have_no_fault_of_accessibility(pages: dict[str, str], tmp_path: Path) -> None:
    """axe-core finds none in either theme, with all folds open, and finds those of a faulty page.

    Frames have the theme of the element that holds them, so that one browser shows both.
    """
    (tmp_path / "axe.min.js").write_text(axe(tmp_path), encoding="utf-8")
    frames = []
    for name, html in {**pages, "faulty": FAULTY}.items():
        # The policy forbids scripts; axe-core gives no verdict on text above the shadows of tables.
        checked = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", html)
        checked = checked.replace("</style>", ".scroll { background: none !important }</style>")
        (tmp_path / f"{name}.html").write_text(checked.replace("</body>", CHECK), encoding="utf-8")
        frames += [
            f"<iframe style='color-scheme:{theme};width:900px;height:700px' "
            f"src='{name}.html#{name}-{theme}'></iframe>"
            for theme in ("light", "dark")
        ]
    around = tmp_path / "around.html"
    around.write_text(f"<!DOCTYPE html><body>{''.join(frames)}</body>", encoding="utf-8")
    patience = "--virtual-time-budget=60000"
    picture = f"--screenshot={tmp_path / 'page.png'}"
    said = browse(tmp_path, patience, picture, "--window-size=1000,5800", around.as_uri())
    results = [json.loads(found) for found in re.findall(r"axe (\[.*\]) end", said)]
    violations = {frame[1:]: found for frame, passes, found in results if passes}
    assert len(violations) == 2 * len(pages) + 2, said
    for theme in ("light", "dark"):
        assert all(violations[f"{name}-{theme}"] == [] for name in pages)
        faults = {line.partition(":")[0] for line in violations[f"faulty-{theme}"]}
        assert {"color-contrast", "image-alt", "html-has-lang"} <= faults
    pixels = matplotlib.image.imread(tmp_path / "page.png")[..., :3]
    assert np.allclose(pixels[20, 500], 1, atol=0.01)  # light, and below it dark
    assert np.allclose(pixels[730, 500], np.array([0x14, 0x18, 0x1E]) / 255, atol=0.01)
