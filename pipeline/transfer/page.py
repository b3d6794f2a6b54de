"""The transfer matrix as a page, as JSON and as text."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from features.files.records import write_json
from features.files.writing import replacing
from features.process.terminal import aligned
from pipeline.evaluation.statistics import DRAWS
from pipeline.html.format import NAMES, few_clusters_note, number, signed, span
from pipeline.html.pages import page_environment
from pipeline.transfer.ground import Ground
from pipeline.transfer.matrix import Column

FORMAT = {"format": "heronry-transfer", "version": 1}
HEADLINE = "uar"


@dataclass(frozen=True)
class Transfer:
    """Models of one entry on several corpora.

    Attributes:
        fusion: Entry of `models`.
        ground: The corpora.
        columns: TargetCorpus corpora, in order.
        seeds: Number of seeds of each training.
    """

    fusion: str
    ground: Ground
    columns: Sequence[Column]
    seeds: int

    @property
    def sources(self) -> list[str]:
        """Corpora that were trained on; the union last."""
        return [*self.ground.corpora, self.ground.union]


def write(found: Transfer, folder: Path) -> Path:
    """Write `index.html` and `transfer.json` into a folder; returns the page."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "transfer.json", _record(found))
    pages = page_environment(Path(__file__).parent / "templates", DRAWS=DRAWS)
    title = f"Transfer of {found.fusion}: {', '.join(found.ground.corpora)}"
    text = pages.get_template("transfer.html").render(
        title=title,
        found=found,
        ground=found.ground,
        headline=HEADLINE,
        few=[few_clusters_note(each.clusters, each.unit) for each in found.columns],
    )
    page = folder / "index.html"
    with replacing(page) as temporary:
        temporary.write_text(text, encoding="utf-8")
    return page


def as_text(found: Transfer) -> str:
    """The matrix of the headline score for a terminal, a row for each model."""
    header = [f"{NAMES[HEADLINE]}, trained on", *(f"tested on {c.corpus}" for c in found.columns)]
    rows = [header]
    for source in found.sources:
        cells = [source]
        for each in found.columns:
            cell = each.cells[source]
            interval = cell.intervals.get(HEADLINE)
            text = number(cell.scores[HEADLINE]) + (f" ({span(interval)})" if interval else "")
            if HEADLINE in cell.change:
                text += f" {signed(cell.change[HEADLINE][0])}"
            cells.append(text + ("*" if cell.unseen else ""))
        rows.append(cells)
    notes = ["with 95 % intervals, and the difference from the model of the tested corpus itself"]
    if any(cell.unseen for each in found.columns for cell in each.cells.values()):
        notes.append("* some classes of the tested corpus were never taught: see the page")
    return "\n".join([*aligned(rows), *notes])


def _record(found: Transfer) -> dict[str, Any]:
    """Content of transfer.json."""
    return {
        **FORMAT,
        "fusion": found.fusion,
        "seeds": found.seeds,
        "union": found.ground.union,
        "classes": list(found.ground.classes),
        "maps": {name: dict(of.map) for name, of in found.ground.corpora.items()},
        "leaks": list(found.ground.leaks),
        "columns": [dataclasses.asdict(each) for each in found.columns],
    }
