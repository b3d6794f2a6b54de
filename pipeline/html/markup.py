"""HTML in which text cannot become markup.

Whatever is not `Markup` is escaped on its way into a page, so that a class or a speaker may be
called `<script>`. The page is one file without scripts; its policy forbids them once more, and
any address but that of sound within the page itself.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence

from pipeline.html.style import CSS

POLICY = "default-src 'none'; style-src 'unsafe-inline'; media-src data:"


class Markup(str):
    """HTML that is already safe."""

    __slots__ = ()


def safe(value: object) -> Markup:
    """`Markup` as it is, anything else escaped.

    >>> safe("<b>")
    '&lt;b&gt;'
    """
    return value if isinstance(value, Markup) else Markup(html.escape(str(value)))


def element(
    tag: str, *children: object, style: str = "", label: str = "", **attributes: str
) -> Markup:
    """`<tag class="style" title="label" ...>children</tag>`; children are escaped unless `Markup`.

    Args:
        tag: Name.
        children: What is within.
        style: Class of the style sheet.
        label: Shown on pointing at it.
        attributes: Others, escaped; `aria_label` becomes `aria-label`.
    """
    given = {"class": style, "title": label}
    given = {name: value for name, value in given.items() if value}
    given |= {name.replace("_", "-"): value for name, value in attributes.items()}
    written = "".join(f' {name}="{html.escape(value)}"' for name, value in given.items())
    return Markup(f"<{tag}{written}>{''.join(map(safe, children))}</{tag}>")


def section(title: str, *parts: object, id: str = "") -> Markup:
    """A heading with what belongs below it; links reach it by its id."""
    place = {"id": id} if id else {}
    return element("section", element("h2", title), *parts, **place)


def contents(titles: Mapping[str, str]) -> Markup:
    """Links to sections: title by id."""
    links = [element("li", element("a", title, href=f"#{id}")) for id, title in titles.items()]
    return element("nav", element("ul", *links), aria_label="Contents")


def folded(title: str, *parts: object) -> Markup:
    """Parts that open on a click or a key on their title."""
    return element("details", element("summary", title), *parts)


def quiet(*parts: object) -> Markup:
    """A paragraph in small print."""
    return element("p", *parts, style="quiet")


def table(
    header: Sequence[object],
    rows: Iterable[Sequence[object]],
    *,
    style: str = "",
    caption: str = "",
) -> Markup:
    """A table that scrolls by itself, by keyboard too, where it is too wide.

    The first column names the rows.
    """
    head = element("tr", *(_head(cell) for cell in header))
    body = [
        element("tr", element("th", row[0], scope="row"), *(element("td", c) for c in row[1:]))
        for row in rows
    ]
    named = [element("caption", element("span", caption))] if caption else []
    whole = element("table", *named, element("thead", head), element("tbody", *body), style=style)
    region = {"role": "region", "aria_label": caption} if caption else {}
    return element("div", whole, style="scroll", tabindex="0", **region)


def facts(values: Mapping[str, object]) -> Markup:
    """A list of names and values."""
    lines = ((element("dt", name), element("dd", value)) for name, value in values.items())
    return element("dl", *(part for line in lines for part in line))


def block(text: str) -> Markup:
    """Lines of code, which scroll by keyboard where they are too long."""
    return element("pre", text, tabindex="0")


def document(title: str, *body: object) -> str:
    """The whole page."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"{element('title', title)}\n<style>{CSS}</style>\n</head>\n"
        f"<body>\n{element('main', *body)}\n</body>\n</html>\n"
    )


def _head(cell: object) -> Markup:
    # a heading without words would be read out as one
    return element("th", cell, scope="col") if str(cell) else element("td")
