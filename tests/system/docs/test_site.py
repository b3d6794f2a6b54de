"""The documentation site: it builds without a warning, holds every page, and needs no network."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest

from tests.support.markdown import blocks_of, pages
from tests.support.paths import ROOT
from tests.system.test_browser import browse, needs_browser

CONFIG = ROOT / "zensical.toml"
# Opens the search, types a word, and logs how many results are shown.
SEARCH = """<script>
const until = (find, then) => {
  const found = find()
  found ? then(found) : setTimeout(until, 100, find, then)
}
const all = () => [...document.querySelectorAll("*")]
const roots = () => [document, ...all().flatMap(each => each.shadowRoot ?? [])]
const first = query => roots().map(root => root.querySelector(query)).find(found => found)
until(() => first(".md-search button"), button => button.click())
until(() => first("input[role=combobox]"), input => {
  input.focus()
  document.execCommand("insertText", false, "provenance")
  const text = () => roots().map(root => (root.body ?? root).textContent).join(" ")
  until(() => text().match(/[0-9]+ results/), found => console.log("found " + found[0]))
})
</script></body>"""
WIDEST = 110  # characters of a line, but for rows of tables and output of programs


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the built site."""
    root = tmp_path_factory.mktemp("site")
    shutil.copy(CONFIG, root)
    shutil.copytree(ROOT / "docs", root / "docs")
    for package in ("features", "pipeline"):
        (root / package).symlink_to(ROOT / package)
    done = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict"],
        cwd=root,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "No issues found" in done.stdout + done.stderr
    return root / "build" / "site"


def navigation(level: list[Any]) -> Iterator[str]:
    """Pages of a list of navigation, from its sections as well."""
    for entry in level:
        for below in entry.values() if isinstance(entry, dict) else [entry]:
            yield from navigation(below) if isinstance(below, list) else [below]


def test_every_page_is_in_the_navigation_once() -> None:
    config = tomllib.loads(CONFIG.read_text(encoding="utf-8"))
    found = sorted(f"docs/{name}" for name in navigation(config["project"]["nav"]))
    assert found == sorted(page for page in pages() if page != "README.md")


def test_nothing_is_loaded_from_the_network(site: Path) -> None:
    loaded = re.compile(r"<(?:script|link|img|iframe|source)[^>]*(?:src|href)=\"(https?:[^\"]*)")
    built = list(site.rglob("*.html"))  # one is 404.html; README is none
    assert len(built) == len(pages())
    for path in built:
        assert loaded.findall(path.read_text(encoding="utf-8")) == [], path.name


class _Page(HTMLParser):
    """Targets of the links and pictures of a page, and the ids in it."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.ids: set[str] = {""}
        self.feed(path.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = dict(attributes)
        self.ids.add(values.get("id") or "")
        link = values.get({"a": "href", "img": "src"}.get(tag, ""))
        if link:
            self.links.append(link)


def test_links_lead_to_pages_files_and_anchors(site: Path) -> None:
    """The builder checks links between pages; this, files beside them as well."""
    found = {path: _Page(path) for path in site.rglob("*.html") if path.name != "404.html"}
    for path, page in found.items():
        for link in page.links:
            if urlsplit(link).scheme:
                continue
            name, _, anchor = link.partition("#")
            target = (path.parent / name).resolve() if name else path
            assert target.is_file() or (target / "index.html").is_file(), f"{path.name}: {link}"
            if target in found:
                assert unquote(anchor) in found[target].ids, f"{path.name}: {link}"


@pytest.mark.browser
@needs_browser
def test_the_search_works_without_a_server(site: Path, tmp_path: Path) -> None:
    """Browsers start no workers for pages of the disk: docs/assets/iframe-worker.js stands in."""
    page = site / "searched.html"
    text = (site / "index.html").read_text(encoding="utf-8")
    page.write_text(text.replace("</body>", SEARCH), encoding="utf-8")
    try:
        said = browse(tmp_path, "--virtual-time-budget=20000", "--dump-dom", page.as_uri())
    finally:
        page.unlink()
    assert re.search(r"found [1-9][0-9]* results", said), said


def test_docstrings_become_a_reference(site: Path) -> None:
    text = (site / "api" / "features.html").read_text(encoding="utf-8")
    for name in ("features.cache.reader.CacheReader.batch", "features.stream.Stream.pad"):
        assert f'id="{name}"' in text
    assert "A batch of utterances, padded with zeros." in text


@pytest.mark.parametrize("page", pages())
def test_lines_are_short(page: str) -> None:
    shown = "".join(b.code for b in blocks_of(page) if b.language in ("console", "text"))
    for number, line in enumerate((ROOT / page).read_text(encoding="utf-8").splitlines(), 1):
        cannot_break = line.lstrip().startswith("|") or line in shown
        assert len(line) <= WIDEST or cannot_break, f"{page}:{number}"


def test_links_of_the_readme_lead_somewhere() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\](?:\(|: )([^)#\s]+)", text) if ":" not in link]
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
