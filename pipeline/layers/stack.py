"""Hidden states of one network in the sealed caches of a corpus, and their time averages.

A stack is one cache that holds several states side by side, or several caches whose entries differ
in their layers alone. Nothing is extracted.

Shapes: N utterances, L states, D width of one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

from features.arguments import one_of
from features.cache.reader import CacheReader
from features.cache.shard import DEVIATION
from features.corpus.labels_folder import read_labelled
from features.corpus.leak_gate import check_leaks
from features.errors import CacheError, ParamsError
from pipeline.data.examples import Examples, join
from pipeline.data.layer_views import LAYER
from pipeline.runs.layer_probes import layer_columns
from pipeline.runs.probes import Vectors, in_parts, room, time_averages

_REMEDY = (
    "expected features with several: an entry of `backbones` that has `layer: all`, which one pass "
    "of the network extracts, or several entries that differ in `layer` alone"
)


@dataclass(frozen=True)
class LayerStack:
    """Hidden states of a network on a corpus.

    Attributes:
        corpus: Name of the corpus.
        entries: Names of the caches.
        folds: Number of folds of the corpus's protocol.
        examples: The utterances with a class that all of the caches hold, and these by entry.
        columns: Columns of each state by entry and number; no number occurs twice.
        leaks: Leaks between the splits, as the corpus allows them, for people.
    """

    corpus: str
    entries: tuple[str, ...]
    folds: int
    examples: Examples
    columns: Mapping[str, Mapping[int, slice]]
    leaks: tuple[str, ...]

    @classmethod
    def open(cls, corpus: str, entries: Sequence[str]) -> Self:
        """Open the caches below the current folder.

        Raises:
            CacheError: If a cache is missing or damaged.
            ManifestError: If the corpus is not prepared, or leaks.
            ParamsError: If the corpus has no classes, or the caches hold no several states of one
                network.
        """
        labels_folder = Path("data", corpus, "labels")
        card, labels = read_labelled(labels_folder)
        folders = {entry: Path("cache", corpus, entry) for entry in entries}
        for entry, folder in folders.items():
            if not any(folder.glob("*.h5")):
                held = {path.parent.name for path in folder.parent.glob("*/*.h5")}
                others = f"; expected {one_of(entry, held)}" if held else ""
                raise CacheError(
                    f"{folder} holds no features{others}: extract it by "
                    f"`python -m stages.extract {corpus} {entry}`"
                )
        if not card["classes"]:
            raise ParamsError(
                f"corpus {corpus} has no classes, which the probes of layers predict; expected a "
                "corpus with some"
            )
        leaks = check_leaks(labels_folder, folders)
        known = [label for label in labels if label.label is not None]
        examples = join(folders, known, card["classes"], verify=False)
        columns = {entry: _columns(examples.readers[entry]) for entry in entries}
        _check_one_network(columns, examples.readers)
        lines = tuple(leaks["lines"])
        return cls(corpus, tuple(entries), card["folds"], examples, columns, lines)

    @property
    def numbers(self) -> list[int]:
        """Numbers of the states in order."""
        return sorted(number for states in self.columns.values() for number in states)

    def means(self) -> Mapping[int, Vectors]:
        """Time averages of all utterances, `[N, D]` by state, in order of `examples.labels`.

        Each cache is read once, in its own order. The averages lie in a temporary file without a
        name (8 L N D bytes below TMPDIR), so that memory holds those of the states in use alone.
        """
        places = {label.id: row for row, label in enumerate(self.examples.labels)}
        widths = {
            states.stop - states.start for of in self.columns.values() for states in of.values()
        }
        found = room(len(self.numbers), len(places), *widths)
        where = {number: row for row, number in enumerate(self.numbers)}
        for entry, states in self.columns.items():
            reader = self.examples.readers[entry]
            ids = [id for id in reader if id in places]
            for part in in_parts(reader, ids):
                means = time_averages(reader.batch(part), reader.spec)
                rows = [places[id] for id in part]
                for number, columns in states.items():
                    found[where[number], rows] = means[:, columns]
        return {number: found[row] for number, row in where.items()}


def _columns(reader: CacheReader) -> Mapping[int, slice]:
    """Columns of each state that a cache holds."""
    number = reader.provenance.get(LAYER)
    if isinstance(number, int) and reader.spec.bins is None and reader.spec.layers == 1:
        return {number: slice(0, reader.spec.dim)}
    found = layer_columns(reader.spec, reader.provenance)
    if not found:
        raise ParamsError(f"{reader.folder} holds no hidden states with numbers; {_REMEDY}")
    return found


def _check_one_network(
    columns: Mapping[str, Mapping[int, slice]], readers: Mapping[str, CacheReader]
) -> None:
    """Refuse caches of different networks or settings, and a single state."""
    (first, _), *others = columns.items()
    wanted = _settings(readers[first])
    seen = dict.fromkeys(columns[first], first)
    for entry, _ in others:
        found = _settings(readers[entry])
        apart = sorted(k for k in wanted.keys() | found.keys() if wanted.get(k) != found.get(k))
        if apart:
            raise ParamsError(
                f"{entry} differs from {first} in {', '.join(apart)}; expected entries of one "
                f"network, of a pinned `revision`, that differ in `{LAYER}` alone, or one entry "
                "that has `layer: all`"
            )
        for number in columns[entry]:
            if number in seen:
                raise ParamsError(
                    f"{entry} and {seen[number]} both hold layer {number}; expected each layer "
                    "once: leave one of them out"
                )
            seen[number] = entry
    if len(seen) == 1:
        raise ParamsError(f"{first} holds layer {next(iter(seen))} alone; {_REMEDY}")


def _settings(reader: CacheReader) -> dict[str, Any]:
    """What siblings share: their provenance without the layers, and what hangs on these."""
    varying = [LAYER, DEVIATION]
    if reader.provenance.get("revision"):
        # The hash is that of the layers up to the deepest one; a revision stands for all of them.
        varying.append("weights_sha256")
    width = reader.spec.dim // reader.spec.layers
    shared = {name: value for name, value in reader.provenance.items() if name not in varying}
    return {**shared, "width": width}
