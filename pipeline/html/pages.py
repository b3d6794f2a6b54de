"""Pages from Jinja2 templates: one HTML file each, without scripts or other files.

Autoescape is on in every template, so that text from data cannot become markup: a class or a
speaker may be called `<script>`. The policy in templates/base.html forbids scripts a second time,
and every address but that of sound within the page itself.
"""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from pipeline.html.format import NAMES, NONE, dash, number, quantity, signed, signed_span, span

SHARED = Path(__file__).parent / "templates"


def page_environment(folder: Path, **names: object) -> Environment:
    """Environment of a folder of templates and of those that all pages share.

    Args:
        folder: Folder of the templates.
        names: Functions and constants that they may use, besides those of `pipeline.html.format`.
    """
    pages = Environment(
        loader=FileSystemLoader([folder, SHARED]),
        autoescape=True,  # for every file, whatever its extension
        undefined=StrictUndefined,  # a misspelt name is an error, not an empty cell
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    for text in (dash, number, signed, signed_span, span):
        pages.filters[text.__name__] = text
    pages.globals |= {"NAMES": NAMES, "NONE": NONE, "quantity": quantity, **names}
    return pages
