"""Linear probes: unimodal baselines on the time averages of each slot's features.

A probe is a multinomial logistic regression on standardised vectors, one an utterance: the mean
over time of real-valued streams, the share of frames in each bin of others. It is trained on the
training split, and its strength of regularisation (C = 1, the library's default) is not tuned, so
nothing is selected on any split. It has no seed: there is one for each fold. After end-to-end
training it reads the features of the tuned backbones (`pipeline.e2e.extras`), which differ by seed.

Shapes: N utterances, D width, K classes.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from features.corpus.manifest import Label
from features.files.csv_text import write_csv
from features.stream import Stream, StreamSpec
from pipeline.data.examples import Examples
from pipeline.runs.layout import PROBES

ITERATIONS = 200  # of the fit; if it has not converged by then, the last iterate is taken
_CHUNK = 64  # utterances read at once
Vectors = NDArray[np.float64]


def write_probes(
    path: Path,
    classes: Sequence[str],
    train: Sequence[Label],
    test: Sequence[Label],
    vectors: Mapping[str, tuple[Vectors, Vectors]],
) -> None:
    """Fit a probe on each slot of a fold, and write its test predictions.

    Args:
        path: probes.csv, with the columns `pipeline.runs.layout.PROBES` and `p_<class>`.
        classes: Class names.
        train: Training split.
        test: Test split.
        vectors: By slot: vectors `[M, D]` of the training split, and `[N, D]` of the test split.
    """
    targets = [label.class_name for label in train]
    rows = [
        [label.id, slot, label.class_name, classes[int(row.argmax())], *(f"{p:.9g}" for p in row)]
        for slot, (fitted, tested) in vectors.items()
        for label, row in zip(test, fit_probe(fitted, tested, targets, classes), strict=True)
    ]
    write_csv(path, [*PROBES, *(f"p_{name}" for name in classes)], rows)


def fit_probe(
    train: Vectors, test: Vectors, targets: Sequence[str], classes: Sequence[str]
) -> NDArray[np.float64]:
    """Fit a probe to vectors `[M, D]` and their labels; its probabilities `[N, K]` for others.

    A class without training utterances gets 0.
    """
    result = np.zeros((len(test), len(classes)))
    if len(set(targets)) == 1:  # a regression needs two classes
        result[:, classes.index(targets[0])] = 1.0
        return result
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=ITERATIONS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(train, targets)
    # The classes of the training split alone, in sorted order.
    columns = [classes.index(name) for name in model.classes_]
    result[:, columns] = model.predict_proba(test)
    return result


@torch.inference_mode()
def cached_vectors(examples: Examples, slot: str, labels: Sequence[Label]) -> Vectors:
    """One vector per utterance, `[N, D]`."""
    reader = examples.readers[slot]
    ids = [label.id for label in labels]
    parts = [
        time_averages(reader.batch(ids[start : start + _CHUNK]), reader.spec)
        for start in range(0, len(ids), _CHUNK)
    ]
    return np.concatenate(parts)


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
