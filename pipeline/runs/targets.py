"""What a run learns: settings of `train` against what the corpus offers and its splits hold."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from features.arguments import in_lines, one_of
from features.corpus.manifest import UNLABELLED, Label
from features.errors import ParamsError
from pipeline.data.source import ExampleSource
from pipeline.data.targets import TargetReader, gender_shares, known_values
from pipeline.model.outputs import GENDERS, Outputs
from pipeline.params.training import LAST, LOSS, TrainParams, monitors_of

FEWEST = 2  # known values of an attribute in a split, so that there is a spread


def reader_for(
    params: TrainParams, card: Mapping[str, Any], labels: Sequence[Label], corpus: str
) -> TargetReader | None:
    """What a model learns of a corpus; None: one class an utterance.

    Args:
        params: The protocol.
        card: card.json.
        labels: Labels of the corpus.
        corpus: Its name in params.yaml, for messages.

    Raises:
        ParamsError: If the corpus does not offer a target or an attribute.
    """
    targets: Mapping[str, Any] = card.get("targets") or {"tasks": ["classes"]}
    offered = [*targets["tasks"]]
    if not np.isnan(gender_shares(labels)).all():
        offered.append("gender")
    missing = [target for target in params.targets if target not in offered]
    if missing:
        raise ParamsError(
            f"train.targets: given {missing[0]!r}, which the corpus {corpus!r} does not offer; "
            f"expected {one_of(missing[0], offered)}: what else it has is asked for by "
            f"`corpora.{corpus}.targets`"
        )
    if params.classes_alone:
        return None
    outputs = _outputs(params, card["classes"], targets.get("attributes") or {}, corpus)
    known = [*monitors_of(params.targets, outputs.attributes), LOSS, LAST]
    if params.monitor not in known:
        raise ParamsError(
            f"train.monitor: given {params.monitor!r}; expected {one_of(params.monitor, known)}"
        )
    return TargetReader(
        params.targets,
        outputs,
        params.vote_shares,
        params.secondary_weight,
        params.votes_missing,
        with_self=(targets.get("policies") or {}).get("self_evaluation") == "include",
    )


def _outputs(
    params: TrainParams, classes: Sequence[str], held: Mapping[str, Any], corpus: str
) -> Outputs:
    learnt = set(params.targets)
    attributes = (params.attributes or tuple(held)) if "attributes" in learnt else ()
    for name in attributes:
        if name not in held:
            raise ParamsError(
                f"train.attributes: given {name!r}; expected attributes of the corpus {corpus!r}, "
                f"{one_of(name, held)}"
            )
    return Outputs(
        tuple(classes) if learnt & {"classes", "votes"} else (),
        attributes,
        GENDERS if "gender" in learnt else (),
        {name: (float(held[name]["low"]), float(held[name]["high"])) for name in attributes},
        params.attribute_link,
        binary="votes" in learnt and params.vote_loss == "multilabel_bce",
    )


def usable(labels: Sequence[Label], reader: TargetReader | None) -> list[Label]:
    """Labels that have something a model learns, and those that are only to be predicted."""
    return [
        label
        for label in labels
        if set(label.splits) == {UNLABELLED}
        or (label.label is not None if reader is None else reader.learns_from(label))
    ]


def check_splits(
    reader: TargetReader, params: TrainParams, examples: ExampleSource, folds: int
) -> None:
    """Refuse splits that hold too little of a target to be trained or scored.

    Raises:
        ParamsError: Naming each target, split and fold.
    """
    problems = [line for fold in range(folds) for line in _problems(reader, params, examples, fold)]
    if problems:
        raise ParamsError(in_lines(problems))


def _problems(
    reader: TargetReader, params: TrainParams, examples: ExampleSource, fold: int
) -> Iterator[str]:
    attributes = reader.outputs.attributes
    for split in ("train", "valid", "test"):
        labels = examples.split(fold, split)
        where = f"the split {split}, fold {fold}"
        values = known_values(labels, attributes)
        for number, name in enumerate(attributes):
            known = values[:, number][~np.isnan(values[:, number])]
            if len(known) < FEWEST:
                yield (
                    f"train.attributes: {where} has {len(known)} known values of {name!r}; "
                    f"expected at least {FEWEST}: leave this attribute out"
                )
            elif split == "train" and np.ptp(known) == 0:
                yield (
                    f"train.attributes: all {len(known)} values of {name!r} in {where} are "
                    f"{known[0]:g}; expected different ones: leave this attribute out"
                )
            low, high = reader.outputs.scales[name]
            outside = known[(known < low) | (known > high)]
            if len(outside):
                yield (
                    f"train.attributes: {where} has the value {outside[0]:g} of {name!r}; expected "
                    f"values of its scale, {low:g} to {high:g}: correct the scale of the corpus"
                )
        if "votes" in reader.tasks and np.isnan(reader.votes(labels)).all():
            yield f"train.targets: {where} has no votes; expected some, or no target votes"
        if "classes" in reader.tasks and all(label.label is None for label in labels):
            yield f"train.targets: {where} has no classes; expected some, or no target classes"
        without = sum(label.label is None for label in labels)
        if params.sampler != "none" and split == "train" and without:
            yield (
                f"train.sampler: given {params.sampler!r}, and {without} utterances of {where} "
                "have no class to be drawn by; expected `sampler: none`"
            )
