"""The curve of a network's layers as a page, as JSON, as CSV and as text."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from features.files.csv_text import write_csv
from features.files.records import write_json
from features.files.writing import replacing
from features.process.terminal import aligned
from pipeline.evaluation.layers import CHOOSES, LayerCurve
from pipeline.html import plots
from pipeline.html.format import NAMES, NONE, number, quantity, signed, signed_span, span
from pipeline.html.pages import page_environment
from pipeline.layers.stack import LayerStack
from pipeline.metrics.classes import MONITORS
from pipeline.report.summary import few_clusters

FORMAT = {"format": "heronry-layers", "version": 1}


@dataclass(frozen=True)
class LayersPage:
    """A curve, and what it rests on.

    Attributes:
        stack: The caches.
        curve: Scores of their layers.
    """

    stack: LayerStack
    curve: LayerCurve

    @property
    def warnings(self) -> list[str]:
        """What a reader should know before trusting the scores."""
        found = [*few_clusters(self.curve.clusters), *self.stack.leaks]
        left_out = len(self.stack.examples.dropped)
        if left_out:
            found.append(f"{quantity(left_out, 'utterance')} without features left out.")
        return found

    def write(self, folder: Path) -> Path:
        """Write `index.html`, `layers.json` and `layers.csv`; returns the page."""
        folder.mkdir(parents=True, exist_ok=True)
        write_json(folder / "layers.json", self._record())
        write_csv(folder / "layers.csv", *self._table())
        pages = page_environment(Path(__file__).parent / "templates", CHOOSES=CHOOSES, plots=plots)
        text = pages.get_template("layers.html").render(
            title=f"Layers of {self.curve.name} on {self.stack.corpus}",
            page=self,
            curve=self.curve,
            stack=self.stack,
        )
        page = folder / "index.html"
        with replacing(page) as temporary:
            temporary.write_text(text, encoding="utf-8")
        return page

    def as_text(self) -> str:
        """The curve for a terminal, a row for each layer."""
        title = NAMES[CHOOSES]
        header = ["", "layer", f"valid. {title}", f"test {title}", "95 % interval"]
        rows = [[*header, f"against layer {self.curve.chosen}"]]
        for layer in self.curve.layers:
            chosen, change = layer.number == self.curve.chosen, layer.change[CHOOSES]
            between = f" ({signed_span(change.interval)})" if change.interval else ""
            rows.append(
                [
                    "*" if chosen else "",
                    str(layer.number),
                    number(layer.valid[CHOOSES]),
                    number(layer.test[CHOOSES]),
                    span(layer.intervals.get(CHOOSES)),
                    NONE if chosen else signed(change.value) + between,
                ]
            )
        notes = [
            "* chosen by validation, the lowest of equals; test scores choose nothing, the best of "
            "many is partly luck"
        ]
        return "\n".join([*aligned(rows), *notes])

    def _record(self) -> dict[str, Any]:
        """Content of layers.json."""
        return {
            **FORMAT,
            "corpus": self.stack.corpus,
            "entries": list(self.stack.entries),
            "classes": list(self.stack.examples.classes),
            "folds": self.stack.folds,
            "left_out": len(self.stack.examples.dropped),
            "chosen_by": f"valid_{CHOOSES}",
            **dataclasses.asdict(self.curve),
        }

    def _table(self) -> tuple[list[str], Iterator[list[object]]]:
        """Header and rows of layers.csv, with the keys of details.json."""
        header = ["layer", "chosen", *(f"valid_{name}" for name in MONITORS)]
        header += [f"{name}{end}" for name in MONITORS for end in ("", "_low", "_high")]
        return header, (self._row(place) for place in range(len(self.curve.layers)))

    def _row(self, place: int) -> list[object]:
        layer = self.curve.layers[place]
        row: list[object] = [layer.number, int(layer.number == self.curve.chosen)]
        row += [f"{layer.valid[name]:.6f}" for name in MONITORS]
        for name in MONITORS:
            of = layer.intervals.get(name)
            ends = ["", ""] if of is None else [f"{of.low:.6f}", f"{of.high:.6f}"]
            row += [f"{layer.test[name]:.6f}", *ends]
        return row
