"""Text of the report page's sections, as a reader sees it."""

from __future__ import annotations

import html
import re

from pipeline.report.page import section, view_of
from pipeline.report.records import Report


def words(markup: str) -> str:
    """Text between the tags, with single spaces."""
    text = re.sub(r"<[^>]+>", " ", markup)
    return re.sub(r"\s+", " ", html.unescape(text))


def section_words(id: str, report: Report) -> str:
    """Text of one section."""
    return words(section(id, **view_of(report)))
