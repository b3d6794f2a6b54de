"""Whether batches of about equal length hurt a loss that is no mean over rows, 1 - CCC.

    python -m benchmarks.sorted_batches [--corpus demo] [--seeds 10] [--sizes 8,16,32] [--small]

Run it in a project whose corpus offers attributes (`corpora.demo.targets: [classes, attributes]`),
prepared and extracted. Rows of a batch that are alike in length may be alike in what correlates
with it: their spread is smaller, and with it the CCC that the batch can show. `concat` on all
slots given is trained by 1 - CCC with batches from pools sorted by length, as heronry makes them
for losses that are a mean over rows, and with the same rows in a random order; then by squared
errors, which are such a mean.

Printed as JSON: mean CCC of the test split over seeds for each, the mean of the paired difference
(sorted minus shuffled), and its standard error.
"""

from __future__ import annotations

import dataclasses
import json
import math
import statistics
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any
from unittest.mock import patch

import torch
import typer

from features.corpus.labels_folder import read_labelled
from pipeline.data.batching import shuffled_batches
from pipeline.data.examples import join
from pipeline.model.batch import Batch
from pipeline.model.checkpoint import make_model
from pipeline.params.training import TrainParams
from pipeline.runs.job import repeatable
from pipeline.runs.targets import reader_for, usable
from pipeline.training.loop import fit
from pipeline.training.predict import evaluate
from pipeline.training.scores import target_scores


def main(
    *,
    corpus: Annotated[str, typer.Option(help="With attributes and caches.")] = "demo",
    slots: Annotated[str, typer.Option(help="Caches: slot=backbone,...")] = (
        "text=minilm,speech=whisper_tiny_en"
    ),
    seeds: Annotated[int, typer.Option(min=2, help="Trainings of each kind.")] = 10,
    sizes: Annotated[str, typer.Option(help="Batch sizes.")] = "8,16,32",
    epochs: Annotated[int, typer.Option(help="At most.")] = 20,
    small: Annotated[bool, typer.Option("--small", help="Tiny, to try it out.")] = False,
) -> None:
    """Train sorted and shuffled, and print the differences."""
    found: dict[str, Any] = {}
    folders = {
        slot: Path("cache", corpus, backbone)
        for slot, _, backbone in (each.partition("=") for each in slots.split(","))
    }
    for loss in ("ccc", "mse"):
        for size in map(int, sizes.split(",")):
            params = TrainParams(
                targets=("attributes",),
                monitor="ccc",
                attribute_loss=loss,
                batch_size=size,
                lr=5e-4,
                weight_decay=1e-3,
                epochs=1 if small else epochs,
                patience=5,
            )
            pairs = [
                [
                    score(corpus, folders, params, seed, by_length=by_length, small=small)
                    for by_length in (True, False)
                ]
                for seed in range(seeds)
            ]
            found[f"{loss}_{size}"] = compared(pairs)
            typer.echo(json.dumps({f"{loss}_{size}": found[f"{loss}_{size}"]}))


def compared(pairs: list[list[float]]) -> dict[str, float]:
    """Means of both, and of their paired difference with its standard error."""
    differences = [one - other for one, other in pairs]
    return {
        "sorted": round(statistics.mean(one for one, _ in pairs), 4),
        "shuffled": round(statistics.mean(other for _, other in pairs), 4),
        "difference": round(statistics.mean(differences), 4),
        "standard_error": round(statistics.stdev(differences) / math.sqrt(len(pairs)), 4),
    }


def score(
    corpus: str,
    folders: dict[str, Path],
    params: TrainParams,
    seed: int,
    *,
    by_length: bool,
    small: bool,
) -> float:
    """CCC of the test split, of a training."""
    card, labels = read_labelled(Path("data", corpus, "labels"))
    reader = reader_for(params, card, labels, corpus)
    assert reader is not None
    joined = join(folders, usable(labels, reader), [], verify=False)
    examples = dataclasses.replace(joined, targets=reader)

    def batches(*given: Any, **options: Any) -> Iterator[Batch]:
        return shuffled_batches(*given, **options | {"by_length": by_length})

    # heronry itself sorts for losses that are a mean over rows, and not for others.
    with repeatable("cpu"), patch("pipeline.training.loop.shuffled_batches", batches):
        torch.manual_seed(seed)
        args = {"d_model": 16 if small else 128}
        model = make_model("concat", args, examples.specs, reader.outputs.width)
        train, valid, test = (examples.split(0, name) for name in ("train", "valid", "test"))
        fit(model, examples, train=train, valid=valid, params=params, seed=seed)
        return target_scores(reader, test, evaluate(model, examples, test))["ccc"]


if __name__ == "__main__":
    typer.run(main)
