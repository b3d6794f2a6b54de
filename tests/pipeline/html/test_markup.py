"""Markup and numbers of the report, and colours that can be told apart by all."""

from __future__ import annotations

import re

import pytest

from pipeline.evaluation.statistics import FEW_CLUSTERS, ConfidenceInterval
from pipeline.html.format import few, gauge, many, signed, spread, with_span
from pipeline.html.markup import Markup, contents, document, element, section, table
from pipeline.html.style import CSS

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
def test_text_and_lines_stand_out_from_their_ground(theme: str) -> None:
    colours = themes()[theme]
    for ink, ground in TEXT:
        assert contrast(colours[ink], colours[ground]) >= 4.5, f"{ink} on {ground}"
    for name in LINES:
        assert contrast(colours[name], colours["--paper"]) >= 3, name


def test_both_themes_have_the_same_colours() -> None:
    light, dark = themes().values()
    assert light.keys() == dark.keys()


def test_tables_escape_all_but_markup() -> None:
    found = table(["<a>", ""], [[Markup("<i>x</i>"), "<b>"]], caption='"<c>')
    assert '<th scope="col">&lt;a&gt;</th><td></td>' in found
    assert '<th scope="row"><i>x</i></th>' in found
    assert "<td>&lt;b&gt;</td>" in found
    assert 'aria-label="&quot;&lt;c&gt;"' in found
    assert "<caption><span>&quot;&lt;c&gt;</span></caption>" in found


def test_attributes_are_escaped() -> None:
    assert element("p", label='">', id="a'b") == '<p title="&quot;&gt;" id="a&#x27;b"></p>'
    assert element("p", aria_label="<") == '<p aria-label="&lt;"></p>'
    assert section("T", id='"') == '<section id="&quot;"><h2>T</h2></section>'
    assert '<a href="#x">&lt;Y&gt;</a>' in contents({"x": "<Y>"})


def test_the_page_forbids_all_but_its_style_and_its_sound() -> None:
    policy = re.findall(r'Content-Security-Policy" content="([^"]+)"', document("t"))
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'; media-src data:"]


def test_numbers() -> None:
    assert signed(0.1234) == "+0.123"
    assert signed(-0.00001) == "0.000"
    assert spread(0.5, None) == "0.500"
    assert spread(0.5, 0.01) == "0.500 ± 0.010"
    assert many(2, "dialogue") == "2 dialogues"
    assert with_span(None, None) == "–"
    assert with_span(0.5, ConfidenceInterval(0, 1)) == "0.500<small>0.000 – 1.000</small>"
    assert few(FEW_CLUSTERS, "speaker") == ""
    assert "Only 1 speaker:" in few(1, "speaker")


def test_a_gauge_is_drawn_to_scale() -> None:
    found = gauge(0.5, ConfidenceInterval(0.25, 1), 0)
    assert 'cx="88.0"' in found  # the middle of 176
    assert 'd="M46.0 11H172.0"' in found
    assert 'd="M4.0 4V18"' in found
    assert 'aria-label="0.500, interval 0.250 to 1.000, tick at 0.000, from 0 to 1"' in found
    assert "stroke-width" not in gauge(0.5, None)
