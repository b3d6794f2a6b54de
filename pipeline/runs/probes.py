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


def write_probes(path: Path, examples: Examples, fold: int) -> None:
    """Fit a probe on each slot of a fold, and write its test predictions.

    Args:
        path: probes.csv, with the columns `pipeline.runs.layout.PROBES` and `p_<class>`.
        examples: Features and labels.
        fold: Fold whose training split is fitted, and whose test split is predicted.
    """
    train, test = examples.split(fold, "train"), examples.split(fold, "test")
    found = {slot: probe(examples, slot, train, test) for slot in examples.readers}
    write_probe_rows(path, examples.classes, test, found)


def write_probe_rows(
    path: Path,
    classes: Sequence[str],
    test: Sequence[Label],
    found: Mapping[str, NDArray[np.float64]],
) -> None:
    """Write probes.csv: probabilities `[N, K]` of the test utterances, by slot."""
    rows = [
        [label.id, slot, label.label, classes[int(row.argmax())], *(f"{p:.9g}" for p in row)]
        for slot, predicted in found.items()
        for label, row in zip(test, predicted, strict=True)
    ]
    write_csv(path, [*PROBES, *(f"p_{name}" for name in classes)], rows)


def probe(
    examples: Examples, slot: str, train: Sequence[Label], test: Sequence[Label]
) -> NDArray[np.float64]:
    """Probabilities `[N, K]` of the test utterances; a class without training utterances gets 0."""
    targets = [label.label for label in train]
    inputs = vectors(examples, slot, train), vectors(examples, slot, test)
    return fit_and_predict(*inputs, targets, examples.classes)


def fit_and_predict(
    train: NDArray[np.float64],
    test: NDArray[np.float64],
    targets: Sequence[str],
    classes: Sequence[str],
) -> NDArray[np.float64]:
    """Fit a probe to vectors `[M, D]` and their labels; its probabilities for vectors `[N, D]`."""
    result = np.zeros((len(test), len(classes)))
    if len(set(targets)) == 1:  # a regression needs two classes
        result[:, classes.index(targets[0])] = 1.0
        return result
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=ITERATIONS))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(train, targets)
    columns = [classes.index(name) for name in model.classes_]
    result[:, columns] = model.predict_proba(test)
    return result


@torch.inference_mode()
def vectors(examples: Examples, slot: str, labels: Sequence[Label]) -> NDArray[np.float64]:
    """One vector an utterance, `[N, D]`."""
    reader = examples.readers[slot]
    ids = [label.id for label in labels]
    parts = [
        time_averages(reader.batch(ids[start : start + _CHUNK]), reader.spec)
        for start in range(0, len(ids), _CHUNK)
    ]
    return np.concatenate(parts)


def time_averages(stream: Stream, spec: StreamSpec) -> NDArray[np.float64]:
    """Means of frames over time, `[B, D]`, or the shares of frames in each bin, `[B, bins]`."""
    stream = stream.to("cpu")
    if spec.bins is None:
        mean: NDArray[np.float64] = Stream(stream.values.double(), stream.mask).mean().numpy()
        return mean
    counts = [np.bincount(bins.numpy(), minlength=spec.bins) for bins in stream.unpad()]
    shares: NDArray[np.float64] = (
        np.stack(counts) / np.maximum(stream.mask.sum(1).numpy(), 1)[:, None]
    )
    return shares
