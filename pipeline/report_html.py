"""HTML in which text cannot become markup, and the look of the report.

Whatever is not `Markup` is escaped on its way into a page, so that a class or a speaker may be
called `<script>`. The page is one file without scripts; its policy forbids them once more.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence


class Markup(str):
    """HTML that is already safe."""

    __slots__ = ()


def safe(value: object) -> Markup:
    """`Markup` as it is, anything else escaped.

    >>> safe("<b>")
    '&lt;b&gt;'
    """
    return value if isinstance(value, Markup) else Markup(html.escape(str(value)))


def element(tag: str, *children: object, style: str = "", label: str = "") -> Markup:
    """`<tag class="style" title="label">children</tag>`; children are escaped unless `Markup`."""
    attributes = f' class="{style}"' if style else ""
    attributes += f' title="{html.escape(label)}"' if label else ""
    return Markup(f"<{tag}{attributes}>{''.join(map(safe, children))}</{tag}>")


def section(title: str, *parts: object) -> Markup:
    """A heading with what belongs below it."""
    return element("section", element("h2", title), *parts)


def folded(title: str, *parts: object) -> Markup:
    """Parts that open on a click on their title."""
    return element("details", element("summary", title), *parts)


def table(header: Sequence[object], rows: Iterable[Sequence[object]], *, style: str = "") -> Markup:
    """A table that scrolls by itself where it is too wide; the first column names the rows."""
    head = element("tr", *(element("th", cell) for cell in header))
    body = [
        element("tr", element("th", row[0]), *(element("td", cell) for cell in row[1:]))
        for row in rows
    ]
    whole = element("table", element("thead", head), element("tbody", *body), style=style)
    return element("div", whole, style="scroll")


def facts(values: Mapping[str, object]) -> Markup:
    """A list of names and values."""
    lines = ((element("dt", name), element("dd", value)) for name, value in values.items())
    return element("dl", *(part for line in lines for part in line))


def document(title: str, *body: object) -> str:
    """The whole page."""
    policy = "default-src 'none'; style-src 'unsafe-inline'"
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"{element('title', title)}\n<style>{_CSS}</style>\n</head>\n"
        f"<body>\n{element('main', *body)}\n</body>\n</html>\n"
    )


_CSS = """
:root {
  --ink: #1c2430; --faint: #c3cad4; --quiet: #5b6675; --paper: #ffffff; --panel: #f4f6f9;
  --accent: #1f5fa8; --warn: #b3261e; --warn-panel: #fdecea; --note-panel: #fff6dd;
  --series-0: #1f5fa8; --series-1: #c25e00; --series-2: #1b7f4c; --series-3: #a0308f;
  --series-4: #8a6d00; --series-5: #b3261e; --series-6: #00808a; --series-7: #5a5f6b;
}
@media screen and (prefers-color-scheme: dark) {
  :root {
    --ink: #e4e8ee; --faint: #434c5a; --quiet: #9aa5b4; --paper: #14181e; --panel: #1d232b;
    --accent: #6aaef5; --warn: #ff8a80; --warn-panel: #3a1d1b; --note-panel: #33290f;
    --series-0: #6aaef5; --series-1: #ffa552; --series-2: #62cf96; --series-3: #e48bd8;
    --series-4: #e0c14d; --series-5: #ff8a80; --series-6: #55cfd8; --series-7: #aeb5c2;
  }
}
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, "Segoe UI", Roboto, "Helvetica Neue", "Noto Sans", sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; }
h1 { font-size: 1.75rem; line-height: 1.2; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .75rem; padding-bottom: .3rem;
  border-bottom: 1px solid var(--faint); }
h3 { font-size: 1rem; margin: 1.25rem 0 .25rem; }
p { margin: .5rem 0; max-width: 48rem; overflow-wrap: anywhere; }
.quiet { color: var(--quiet); font-size: .875rem; }
.note, .warning { padding: .6rem .9rem; border-radius: .4rem; background: var(--note-panel); }
.warning { background: var(--warn-panel); color: var(--warn); font-weight: 600; }
.scroll { overflow-x: auto; margin: .75rem 0; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .3rem .8rem; text-align: right; border-bottom: 1px solid var(--faint);
  white-space: nowrap; }
thead th { color: var(--quiet); font-weight: 600; font-size: .85rem; vertical-align: bottom; }
th:first-child { text-align: left; font-weight: 600; padding-left: .2rem; }
tbody th { white-space: normal; overflow-wrap: break-word; max-width: 22rem; }
table.words td, table.words th { text-align: left; vertical-align: top; }
table.words td { white-space: normal; overflow-wrap: break-word; max-width: 34rem; }
table.words code { white-space: nowrap; }
table.headline td:nth-child(2) { font-size: 1.25rem; font-weight: 650; }
code, pre { font: .85em/1.45 ui-monospace, "DejaVu Sans Mono", Menlo, Consolas, monospace; }
pre { overflow-x: auto; padding: .7rem; background: var(--panel); border-radius: .4rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.2rem; margin: .75rem 0; }
dt { color: var(--quiet); }
dd { margin: 0; overflow-wrap: anywhere; }
details { margin: .5rem 0; }
summary { cursor: pointer; color: var(--accent); }
.plot { display: block; width: 100%; height: auto; }
.plot text { font-family: inherit !important; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr));
  gap: 1rem 2rem; }
.stack { display: grid; gap: 1rem; max-width: 46rem; }
.key span { margin-right: 1.1rem; white-space: nowrap; }
.gauge { display: block; width: 11rem; height: 1.4rem; }
@media print {
  body { font-size: 10.5pt; }
  main { max-width: none; padding: 0; }
  h2, h3 { break-after: avoid; }
  tr, svg, .note, .warning, .pair > div, .stack > div { break-inside: avoid; }
  .pair { grid-template-columns: 1fr 1fr; }
  .scroll { overflow: visible; }
  * { print-color-adjust: exact; }
}
"""
