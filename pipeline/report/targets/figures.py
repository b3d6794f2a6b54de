"""Plots of attributes and votes, and what they say in words for readers who do not see them."""

from __future__ import annotations

import numpy as np
from markupsafe import Markup

from pipeline.evaluation.attributes.scores import Attribute, AttributeResults
from pipeline.evaluation.run_folder import RunFolder
from pipeline.evaluation.votes.scores import ClassReliability
from pipeline.html.plots import Curve, curves_svg, identity_svg

_LOSSES = {"train_loss": "Training loss", "valid_loss": "Validation loss"}


def agreement_plot(found: AttributeResults, attribute: Attribute) -> Markup:
    """Mean prediction over the truth, with the middle 80 % of the predictions."""
    bins = found.bins[attribute.name]
    ends = f"from {bins[0].prediction:.2f} at {bins[0].truth:.2f} to "
    ends += f"{bins[-1].prediction:.2f} at {bins[-1].truth:.2f}"
    return identity_svg(
        attribute.name,
        (attribute.low, attribute.high),
        np.array([[b.truth, b.prediction, b.tenth, b.ninetieth] for b in bins]),
        ("truth", "prediction"),
        f"Mean prediction of {attribute.name} over its truth, {ends}; dashed: perfect",
    )


def share_plot(found: ClassReliability) -> Markup:
    """Mean share of the votes over the predicted share of a class."""
    points = np.array([[b.predicted, b.truth, b.truth, b.truth] for b in found.bins])
    words = f"Votes for {found.name} over the predicted share, mean gap {found.error:.3f}"
    return identity_svg(found.name, (0.0, 1.0), points, ("predicted", "votes"), words)


def target_curves(run: RunFolder) -> list[Markup]:
    """Losses and the monitored metric over epochs, a line a trained model; empty without epochs."""
    if not any(len(job.history) for job in run.jobs):
        return []
    panels, monitor = dict(_LOSSES), str(run.train.get("monitor"))
    if f"valid_{monitor}" in run.jobs[0].history.header:
        panels[f"valid_{monitor}"] = f"Validation {monitor}"
    plots = []
    for column, title in panels.items():
        lines = [
            Curve(
                job.history.numbers("epoch"),
                job.history.numbers(column),
                job.history.numbers("best") == 1,
                run.seeds.index(job.seed),
            )
            for job in run.jobs
        ]
        kept = np.concatenate([line.values[line.kept] for line in lines])
        words = f"{title} over epochs, {len(lines)} trained models, {np.mean(kept):.3f} when kept"
        plots.append(curves_svg(title, lines, words))
    return plots
