"""Linear probes: unimodal baselines on the time averages of each slot's features.

A probe is a multinomial logistic regression on standardised vectors, one an utterance: the mean
over time of real-valued streams, the share of frames in each bin of others. It is trained on the
training split, and its strength of regularisation (C = 1, the library's default) is not tuned, so
nothing is selected on any split. Of votes it is trained on each utterance once for every class that
a rater chose, weighted by their share; of attributes it is a ridge regression (alpha 1, likewise
not tuned), whose predictions shrink towards the mean. It has no seed: there is one for each fold.
After end-to-end training it reads the features of the tuned backbones (`pipeline.e2e.extras`),
which differ by seed. Fits use one thread: they are so small that several take ten times as long,
mostly waiting for each other, and their last bits would depend on the number of cores.

Shapes: N utterances, D width, K classes.
"""

from __future__ import annotations

import math
import os
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from features.cache.reader import CacheReader
from features.corpus.manifest import Label
from features.files.csv_text import write_csv
from features.stream import Stream, StreamSpec
from pipeline.data.examples import Examples
from pipeline.data.targets import TargetReader, known_values
from pipeline.model.outputs import Outputs
from pipeline.runs.rows import columns_of, named, short_cells
from pipeline.training.scores import Scored

ITERATIONS = 200  # of the fit; if it has not converged by then, the last iterate is taken
_BYTES = 64 << 20  # of padded frames in float64 that are averaged at once
Vectors = NDArray[np.float64]


def write_probes(
    path: Path,
    reader: TargetReader,
    train: Sequence[Label],
    test: Sequence[Label],
    vectors: Mapping[str, tuple[Vectors, Vectors]],
) -> None:
    """Fit a probe on each slot of a fold, and write its test predictions.

    Args:
        path: probes.csv, with the columns `pipeline.runs.layout.Columns.probes`.
        reader: What a probe is to predict.
        train: Training split.
        test: Test split.
        vectors: By slot: vectors `[M, D]` of the training split, and `[N, D]` of the test split.
    """
    classes = reader.outputs.classes
    rows = []
    for slot, (fitted, tested) in vectors.items():
        found = Scored(
            _probabilities(reader, train, fitted, tested),
            values=_values(reader.outputs, train, fitted, tested),
        )
        for label, row, more in zip(
            test, found.probabilities, short_cells(reader, found), strict=True
        ):
            truth = (label.label or "") if classes else ""
            rows.append([label.id, slot, truth, named(classes, row), *more])
    write_csv(path, columns_of(reader).probes, rows)


def _probabilities(
    reader: TargetReader, train: Sequence[Label], fitted: Vectors, tested: Vectors
) -> Vectors:
    """Probabilities `[N, K]` of a probe on classes, or else on votes."""
    classes = reader.outputs.classes
    if "classes" in reader.tasks:
        known = [row for row, label in enumerate(train) if label.label is not None]
        targets = [train[row].class_name for row in known]
        # Rows that are picked are a copy, which would be in memory.
        some = fitted if len(known) == len(train) else fitted[known]
        return fit_probe(some, tested, targets, classes)
    if "votes" not in reader.tasks:
        return np.zeros((len(tested), 0))
    shares = reader.votes(train)
    voted = ~np.isnan(shares).any(1)
    # Each row once for every class that has votes, weighted by their share.
    rows, numbers = np.nonzero(shares[voted])
    targets = [classes[number] for number in numbers.tolist()]
    weights = shares[voted][rows, numbers]
    return fit_probe(fitted[voted][rows], tested, targets, classes, weights)


def _values(outputs: Outputs, train: Sequence[Label], fitted: Vectors, tested: Vectors) -> Vectors:
    """Attributes `[N, A]` of ridge regressions, clipped to their scales."""
    from sklearn.linear_model import Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    truth = known_values(train, outputs.attributes)
    columns = [np.zeros((len(tested), 0))]
    for number in range(truth.shape[1]):
        known = ~np.isnan(truth[:, number])
        model = make_pipeline(StandardScaler(), Ridge(alpha=1.0))
        with threadpool_limits(1):
            model.fit(fitted[known], truth[known, number])
            columns.append(model.predict(tested)[:, None])
    return np.clip(np.concatenate(columns, axis=1), outputs.low, outputs.high)


def fit_probe(
    train: Vectors,
    test: Vectors,
    targets: Sequence[str],
    classes: Sequence[str],
    weights: Vectors | None = None,
) -> NDArray[np.float64]:
    """Fit a probe to vectors `[M, D]` and their labels; its probabilities `[N, K]` for others.

    A class without training utterances gets 0. `weights` `[M]` are those of the rows.
    """
    # Here, since it takes a second, which processes that only train would spend too.
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    result = np.zeros((len(test), len(classes)))
    if len(set(targets)) == 1:  # a regression needs two classes
        result[:, classes.index(targets[0])] = 1.0
        return result
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=ITERATIONS))
    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(train, targets, **_weighted(weights))
        found = model.predict_proba(test)
    # The classes of the training split alone, in sorted order.
    columns = [classes.index(name) for name in model.classes_]
    result[:, columns] = found
    return result


def _weighted(weights: Vectors | None) -> dict[str, Vectors]:
    """Keywords that weight the rows of the regression, and of the scaler before it."""
    if weights is None:
        return {}
    return {f"{step}__sample_weight": weights for step in ("standardscaler", "logisticregression")}


@torch.inference_mode()
def cached_vectors(examples: Examples, slot: str, labels: Sequence[Label]) -> Vectors:
    """One vector per utterance, `[N, D]`, in a temporary file."""
    reader, ids, done = examples.readers[slot], [label.id for label in labels], 0
    found = room(len(ids), reader.spec.bins or reader.spec.dim)
    for part in in_parts(reader, ids):
        found[done : done + len(part)] = time_averages(reader.batch(part), reader.spec)
        done += len(part)
    return found


def room(*shape: int) -> Vectors:
    """Zeros in a temporary file without a name (below TMPDIR): memory need not hold them.

    Raises:
        OSError: If the disk has no room for them.
    """
    with tempfile.TemporaryFile() as file:
        # Else a full disk would end the process when they are written, without a message.
        if hasattr(os, "posix_fallocate"):  # macOS lacks it
            try:
                os.posix_fallocate(file.fileno(), 0, 8 * math.prod(shape))
            except OSError as error:
                error.filename = tempfile.gettempdir()  # the file itself has no name
                raise
        # As a plain array, whose indexing is many times faster.
        return np.asarray(np.memmap(file, np.float64, "w+", shape=shape))


def in_parts(reader: CacheReader, ids: Sequence[str]) -> Iterator[Sequence[str]]:
    """Utterances in order, as many at a time as fit 64 MB as padded frames in float64, or one."""
    # Averages do not depend on the parts: what padding adds to a sum are zeros behind its terms.
    first = longest = 0
    for place, length in enumerate(reader.lengths(ids).tolist()):
        longest = max(longest, length)
        if place > first and 8 * (place + 1 - first) * longest * reader.spec.dim > _BYTES:
            yield ids[first:place]
            first, longest = place, length
    if ids:
        yield ids[first:]


def time_averages(stream: Stream, spec: StreamSpec) -> Vectors:
    """Means of frames over time, `[B, D]`, or the shares of frames in each bin, `[B, bins]`."""
    stream = stream.to("cpu")
    if spec.bins is None:
        # A sum of float16, which caches may hold, would lose digits or overflow.
        mean: NDArray[np.float64] = Stream(stream.values.double(), stream.mask).mean().numpy()
        return mean
    # Shares of frames, not counts: utterances differ in length.
    counts = [np.bincount(bins.numpy(), minlength=spec.bins) for bins in stream.unpad()]
    shares: NDArray[np.float64] = (
        np.stack(counts) / np.maximum(stream.mask.sum(1).numpy(), 1)[:, None]
    )
    return shares
