"""Templates of all pages: what they escape and forbid, numbers, and colours that all can read."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from jinja2 import UndefinedError

from pipeline.evaluation.statistics import ConfidenceInterval
from pipeline.html.format import quantity, shared_speakers_note, signed
from pipeline.html.pages import SHARED, page_environment

CSS = (SHARED / "style.css").read_text(encoding="utf-8")
TEXT = [
    *(("--ink", ground) for ground in ("--paper", "--panel", "--note-panel", "--cell")),
    *((ink, ground) for ink in ("--quiet", "--accent") for ground in ("--paper", "--panel")),
    ("--warn", "--warn-panel"),
]
LINES = [*(f"--series-{index}" for index in range(8)), "--quiet", "--accent"]


def themes() -> dict[str, dict[str, str]]:
    blocks = re.findall(r":root \{(.*?)\}", CSS, re.DOTALL)
    found = [dict(re.findall(r"(--[\w-]+): (#[0-9a-f]{6})", block)) for block in blocks]
    return dict(zip(("light", "dark"), found, strict=True))


def luminance(colour: str) -> float:
    """Relative luminance of sRGB: WCAG 2.2, glossary."""
    values = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    linear = [v / 12.92 if v <= 0.04045 else ((v + 0.055) / 1.055) ** 2.4 for v in values]
    return sum(w * v for w, v in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    low, high = sorted(map(luminance, (one, other)))
    return (high + 0.05) / (low + 0.05)


def test_the_contrast_of_black_and_white_is_21() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_text_and_lines_stand_out_from_their_background(theme: str) -> None:
    colours = themes()[theme]
    for ink, ground in TEXT:
        assert contrast(colours[ink], colours[ground]) >= 4.5, f"{ink} on {ground}"
    for name in LINES:
        assert contrast(colours[name], colours["--paper"]) >= 3, name


def test_both_themes_have_the_same_colours() -> None:
    light, dark = themes().values()
    assert light.keys() == dark.keys()


def render(folder: Path, source: str, **view: object) -> str:
    """A template that uses the shared macros."""
    (folder / "t.html").write_text('{% import "macros.html" as ui %}' + source, encoding="utf-8")
    return page_environment(folder).get_template("t.html").render(view)


def test_tables_escape_all_text(tmp_path: Path) -> None:
    source = '{{ ui.table(["<a>", ""], [[x, "<b>"]], caption=c) }}'
    found = render(tmp_path, source, x="<i>", c='"<c>')
    assert '<th scope="col">&lt;a&gt;</th><td></td>' in found
    assert '<tr><th scope="row">&lt;i&gt;</th><td>&lt;b&gt;</td></tr>' in found
    assert 'aria-label="&#34;&lt;c&gt;"' in found
    assert "<caption><span>&#34;&lt;c&gt;</span></caption>" in found


def test_a_table_takes_rows_as_markup(tmp_path: Path) -> None:
    source = '{% call ui.table(["a"]) %}<tr><th scope="row"><b>{{ x }}</b></th></tr>{% endcall %}'
    found = render(tmp_path, source, x="<i>")
    assert '<tr><th scope="row"><b>&lt;i&gt;</b></th></tr>' in found
    assert "caption" not in found


def test_formatted_and_joined_text_is_escaped_too(tmp_path: Path) -> None:
    for source in ('{{ "%s" % x }}', '{{ "{}".format(x) }}', '{{ "a" ~ x }}', "{{ [x] | join }}"):
        assert "<i>" not in render(tmp_path, source, x="<i>"), source


def test_a_misspelt_name_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UndefinedError, match="nothing"):
        render(tmp_path, "{{ nothing }}")


def test_no_template_switches_escaping_off() -> None:
    """And attributes with values from data are quoted, so that a space cannot begin another."""
    folders = (SHARED, *(SHARED.parents[1] / name / "templates" for name in ("report", "compare")))
    paths = [path for folder in folders for path in folder.glob("*.html")]
    assert len(paths) > 15
    for path in paths:
        source = path.read_text(encoding="utf-8")
        assert not re.search(r"\|\s*safe|autoescape|Markup", source), path
        assert not re.search(r"[\w-]=\{", source), path


def test_the_page_forbids_all_but_its_style_and_its_sound(tmp_path: Path) -> None:
    page = page_environment(tmp_path).get_template("base.html").render(title="<t>")
    assert "<title>&lt;t&gt;</title>" in page
    policy = re.findall(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'; media-src data:"]


def test_numbers(tmp_path: Path) -> None:
    assert signed(0.1234) == "+0.123"
    assert signed(-0.00001) == "0.000"
    assert quantity(2, "dialogue") == "2 dialogues"
    assert shared_speakers_note(0, "dialogue") == ""
    source = "{{ ui.score(value, interval) }}"
    assert render(tmp_path, source, value=None, interval=None) == "–"
    whole = ConfidenceInterval(0, 1)
    assert (
        render(tmp_path, source, value=0.5, interval=whole) == "0.500<small>0.000 – 1.000</small>"
    )


def test_a_gauge_is_drawn_to_scale(tmp_path: Path) -> None:
    source = "{{ ui.gauge(0.5, interval, tick) }}"
    found = render(tmp_path, source, interval=ConfidenceInterval(0.25, 1), tick=0)
    assert 'cx="64.0"' in found  # the middle of 128
    assert 'd="M34.0 11H124.0"' in found
    assert 'd="M4.0 4V18"' in found
    assert 'aria-label="0.500, interval 0.250 to 1.000, tick at 0.000, from 0 to 1"' in found
    assert "stroke-width" not in render(tmp_path, source, interval=None, tick=None)
