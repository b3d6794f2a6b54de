"""The page: its content, escaping of data, and accessibility."""

from __future__ import annotations

import itertools
import re
import tempfile
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib as mpl
import pytest

from features.files.records import write_json
from pipeline.report.evaluate import evaluate
from pipeline.report.page import page
from pipeline.report.records import Report
from tests.support.runs.fake_run import FakeRun, edit_json
from tests.support.runs.pages import section_words

EVIL = "<script>alert('x')</script>"


class Document(HTMLParser):
    """Tags, attributes and visible text; raises if elements are not closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(name, value or "") for name, value in attrs]
        if tag != "meta":
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open and self._open[-1] != "style":
            self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def whole_run(root: Path) -> FakeRun:
    """A run with all that a page may show, and with names that are hard to lay out."""
    classes = ("neutral", "Donaudampfschifffahrtsgesellschaftskapitänsfreude", "a b", "sad")
    name = "speaker-with-a-very-long-name-from-a-corpus-{}"
    fake = FakeRun(root, classes, folds=3, each=20, speaker_name=name, facts=True, extras=True)
    return fake.write(environment={"commit": "c0ffee" * 7, "dirty": True, "command": "x " * 90})


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """A run with nothing unusual."""
    fake = FakeRun(tmp_path_factory.mktemp("plain")).write()
    return evaluate(fake.run, fake.data)


@pytest.fixture(scope="module")
def plain(report: Report) -> str:
    return page(report)


def document_of(fake: FakeRun, **card: Any) -> Document:
    edit_json(fake.data / "card.json", **card)
    return Document(page(evaluate(fake.run, fake.data)))


@pytest.mark.slow
def test_says_what_was_measured_and_on_what(tmp_path: Path) -> None:
    fake = FakeRun(tmp_path, speakers=15).write()
    metrics = evaluate(fake.run, fake.data).metrics
    found = document_of(fake, disclaimer="Only a toy.")
    for name in ("accuracy", "uar", "macro_f1", "weighted_f1", "majority_uar", "ovr_accuracy"):
        assert f"{metrics[name]:.3f}" in found.text
    assert f"{metrics['uar_low']:.3f} – {metrics['uar_high']:.3f}" in found.text
    for words in (
        *("blend on fake", "regime cached", "Only a toy.", "is not accuracy", "Only 5 speakers"),
        *("A corpus that never was", "CC0-1.0", "official", "none found", "12,345", "is kept"),
        *("tone", "8 wide, every 20 ms", "ab12ab12ab12", "tone: no frames", "u0001", "weighted_f1"),
    ):
        assert words in found.text
    assert "allowed by params.yaml" not in found.text


def test_the_page_names_its_experiment_and_run_folder(report: Report, plain: str) -> None:
    named = Document(page(report, experiment="a <b> name")).text
    assert "First made by experiment a <b> name" in named
    assert "run folder runs/cached/fake/blend" in named
    assert "First made outside of an experiment" in Document(plain).text


def test_leaks_stand_out(tmp_path: Path) -> None:
    leaks = ["speaker 3 in train and test"]
    found = document_of(FakeRun(tmp_path).write(), allow_leak=["speaker"], leaks=leaks)
    assert found.text.count("allowed by params.yaml: speaker") == 2
    assert found.attributes.count(("class", "warning")) == 2
    assert "1 found" in found.text
    assert leaks[0] in found.text


def test_a_bare_card_will_do(tmp_path: Path) -> None:
    fake = FakeRun(tmp_path).write()
    (fake.data / "card.json").write_text("{}", encoding="utf-8")
    found = document_of(fake, classes=list(fake.classes), folds=1)
    assert "leaks between splits not stated" in found.text


@pytest.mark.slow
def test_absent_classes_are_named(tmp_path: Path) -> None:
    fake = FakeRun(tmp_path, classes=("a", "b"), each=20).write(classes=["a", "b", "zebra"])
    for seed in fake.seeds:
        path = fake.predictions(seed)
        first, *rest = path.read_text(encoding="utf-8").splitlines()
        lines = [f"{first},p_zebra", *(f"{line},0" for line in rest)]
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    found = document_of(fake, classes=["a", "b", "zebra"])
    assert "Absent from the test labels: zebra." in found.text


def test_a_model_without_epochs_has_no_curves(tmp_path: Path) -> None:
    found = document_of(FakeRun(tmp_path, epochs=0).write())
    assert "not trained in epochs" in found.text
    assert "Training loss" not in found.text


def test_many_dropped_utterances_are_counted(tmp_path: Path) -> None:
    fake = FakeRun(tmp_path, dropped=24).write()
    found = section_words("dropped", evaluate(fake.run, fake.data))
    assert "24 of 108 utterances have no features in some slot" in found
    assert "u0019" in found
    assert "u0020" not in found
    assert "and 4 more" in found


@pytest.mark.slow
def test_data_cannot_become_markup(tmp_path: Path) -> None:
    classes = (EVIL, '"><img src=x onerror=alert(1)>', "$\\frac{$", "怒", "&lt;b&gt;")
    fake = FakeRun(tmp_path, classes, speaker_name=EVIL + "{}", each=20, facts=True, extras=True)
    provenance = {"checkpoint": EVIL, "weights_sha256": EVIL, "revision": '" onload="x'}
    slot = {"backbone": EVIL, "spec": {"dim": EVIL}, "provenance": provenance}
    evil = {"fusion": EVIL, "args": {EVIL: EVIL}, "train": {"monitor": EVIL}}
    evil |= {"environment": {EVIL: EVIL, "commit": EVIL, "packages": {EVIL: EVIL}}}
    fake.write(**evil, slots={EVIL: slot}, inputs={EVIL: {EVIL: 1}})
    leaks: dict[str, Any] = {"format": "heronry-leaks", "version": 1, "found": []}
    write_json(fake.run / "leaks.json", leaks | {"allowed": ["speaker"], "lines": [EVIL]})
    card: dict[str, Any] = dict.fromkeys(("title", "licence", "disclaimer", "protocol"), EVIL)
    card |= {"label_map": {EVIL: EVIL}, "rejected_reasons": {EVIL: 1}, "differences": [EVIL]}
    card |= {"published": {"utterances": 1, "source": EVIL, "notes": [EVIL]}}
    found = document_of(fake, **card)
    assert {"script", "img", "iframe", "object"} & found.tags.keys() == set()
    assert [name for name, _ in found.attributes if name.startswith("on")] == []
    assert found.text.count("<script>") > 10
    for name in classes:
        assert name in found.text


def test_the_page_asks_for_nothing_and_knows_no_date(plain: str) -> None:
    addresses = [value for name, value in Document(plain).attributes if name in ("src", "href")]
    assert {address[0] for address in addresses} == {"#"}
    assert set(re.findall(r"(?:xlink:href=\"|url\()(.)", plain)) == {"#"}
    assert "@import" not in plain
    assert re.search(r"\b20\d\d-\d\d-\d\d", plain) is None
    assert tempfile.gettempdir() not in plain
    assert "default-src 'none'" in plain


def test_ids_of_the_page_are_unique_and_all_references_known(plain: str) -> None:
    ids = Counter(value for name, value in Document(plain).attributes if name == "id")
    assert ids
    assert max(ids.values()) == 1
    assert set(re.findall(r'(?:href="|url\()#([^")]+)', plain)) <= ids.keys()


def test_plots_take_their_colours_from_the_page(plain: str) -> None:
    style, body = plain.split("</style>", 1)
    used = set(re.findall(r"var\((--[\w-]+)\)", body))
    assert {"--ink", "--accent", "--paper", "--cell", "--series-0", "--series-1"} <= used
    for name in used:
        assert style.count(f"{name}:") == 2, f"{name} has a light and a dark value"
    assert re.findall(r"#[0-9a-f]{6}\b(?!\")", body) == []


def test_a_users_matplotlib_settings_do_not_matter(report: Report, plain: str) -> None:
    with mpl.rc_context({"font.size": 30, "axes.grid": True, "svg.fonttype": "path"}):
        assert page(report) == plain
        assert mpl.rcParams["font.size"] == 30


@pytest.mark.slow
def test_the_page_can_be_read_without_seeing_it(tmp_path: Path) -> None:
    """Headings in order; tables and plots have names; what scrolls can be reached by keyboard."""
    whole = whole_run(tmp_path)
    html = page(evaluate(whole.run, whole.data))
    levels = [int(level) for level in re.findall(r"<h(\d)", html)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert html.count("<table") == html.count("<caption>") > 10
    assert re.findall(r"<th(?! scope)[ >]", html) == []
    assert re.findall(r"<svg(?![^>]*aria-label=\"[^\"]+\")", html) == []
    assert re.findall(r'<(?:div class="scroll"|pre)(?![^>]*tabindex="0")', html) == []
    regions = re.findall(r'role="region" aria-label="([^"]+)"', html)
    assert max(Counter(regions).values()) == 1
    links = re.findall(r'<a href="#([^"]+)">', html)
    assert links == re.findall(r'<section id="([^"]+)">', html)
    assert len(links) == html.count("<h2>") > 12
