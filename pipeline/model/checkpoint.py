"""Saves and loads a trained model: safetensors, and a JSON that rebuilds it with no other file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from features.arguments import Record, in_lines, problems
from features.errors import CheckpointError
from features.files.reading import check_regular
from features.files.records import read_record, write_json
from features.files.writing import follow_umask
from features.settings.plugins import load
from features.stream import StreamSpec
from pipeline.model.base import FusionModel
from pipeline.model.inputs import InputLayers, InputSettings, PreparedFusion
from pipeline.model.outputs import Link, Outputs

FORMAT = "heronry-model"
VERSION = 1
FUSIONS = "pipeline.fusion"


def make_model(
    kind: str,
    args: Mapping[str, Any],
    specs: Mapping[str, StreamSpec],
    classes: int,
    *,
    inputs: Mapping[str, Any] | None = None,
) -> FusionModel:
    """Fusion model with fresh weights, drawn from torch's global generator.

    Args:
        kind: Module of the model in `pipeline.fusion`.
        args: Keywords of its constructor.
        specs: Streams by slot, as the caches hold them.
        classes: Width of its last layer: number of classes K, or of all outputs O.
        inputs: Settings of the layers before the model (`pipeline.model.inputs`); None: no layers.

    Raises:
        ParamsError: If the model refuses its arguments or streams.
    """
    before = InputLayers(specs, InputSettings.of(inputs))
    model: FusionModel = load(FUSIONS, kind)(before.specs, classes, **args)
    return PreparedFusion(before, model) if before.changed else model


def describe_model(
    *,
    kind: str,
    args: Mapping[str, Any],
    specs: Mapping[str, StreamSpec],
    classes: Sequence[str],
    inputs: Mapping[str, Any] | None = None,
    outputs: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Content of `model.json`: arguments of `make_model`, names of classes, `Outputs.to_dict`."""
    description = {
        "format": FORMAT,
        "version": VERSION,
        "kind": kind,
        "args": dict(args),
        "specs": {slot: spec.to_dict() for slot, spec in specs.items()},
        "classes": list(classes),
    }
    if outputs:
        description["outputs"] = dict(outputs)
    switched_on = InputSettings.of(inputs).to_dict()
    if switched_on:
        description["inputs"] = switched_on
    return description


def save_model(  # noqa: PLR0913  they are the fields of a file
    folder: Path,
    model: FusionModel,
    *,
    kind: str,
    args: Mapping[str, Any],
    specs: Mapping[str, StreamSpec],
    classes: Sequence[str],
    inputs: Mapping[str, Any] | None = None,
    outputs: Mapping[str, Any] | None = None,
) -> None:
    """Write `model.safetensors` and `model.json`, given the arguments of `describe_model`."""
    folder.mkdir(parents=True, exist_ok=True)
    # safetensors refuses tensors that are not contiguous.
    state = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    save_file(state, folder / "model.safetensors")
    follow_umask(folder / "model.safetensors")
    description = describe_model(
        kind=kind, args=args, specs=specs, classes=classes, inputs=inputs, outputs=outputs
    )
    write_json(folder / "model.json", description)


@dataclass(frozen=True)
class OutputsDescription(Record):
    """Field `outputs` of model.json: of `pipeline.model.outputs.Outputs` what is not classes."""

    attributes: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    genders: Sequence[str] = ()
    link: Link = "identity"
    binary: bool = False


@dataclass(frozen=True)
class Description:
    """Fields of model.json."""

    format: Literal["heronry-model"]
    version: Literal[1]
    kind: str
    args: Mapping[str, Any]
    specs: Mapping[str, Mapping[str, Any]]
    classes: Sequence[str]
    inputs: Mapping[str, Any] = field(default_factory=dict)
    outputs: OutputsDescription | None = None


def read_description(folder: Path) -> dict[str, Any]:
    """Read model.json of a trained model.

    Raises:
        ManifestError: If it is missing or no JSON object.
        CheckpointError: If a field is missing or of another type.
    """
    return read_record(folder / "model.json", Description, "train again", CheckpointError)


def outputs_of(description: Mapping[str, Any]) -> Outputs:
    """Columns of the output of the model that model.json describes."""
    return Outputs.of(description["classes"], description.get("outputs"))


def load_model(folder: Path) -> tuple[FusionModel, list[str]]:
    """Load a model in eval mode, and its class names (`outputs_of` names all of its outputs).

    Raises:
        CheckpointError: If the files are missing, foreign or do not fit each other.
    """
    description = read_description(folder)
    kind, args = load(FUSIONS, description["kind"]), description["args"]
    # model.json may come from anywhere, and is checked as params.yaml is.
    wrong = problems(kind, args, "args", skip=("specs", "classes"))
    if wrong:
        raise CheckpointError(f"{folder / 'model.json'}: {in_lines(wrong)}; train again")
    try:
        specs = {slot: StreamSpec(**spec) for slot, spec in description["specs"].items()}
        # Weights are drawn first, which must not disturb a training: on the CPU, so that no other
        # device's numbers need to be kept, for which torch would begin to use each GPU.
        with torch.random.fork_rng(devices=[]):
            model = make_model(
                description["kind"],
                args,
                specs,
                outputs_of(description).width,
                inputs=description.get("inputs"),
            )
    except (TypeError, ValueError, RuntimeError) as error:  # of the model's own constructor
        raise CheckpointError(
            f"{folder / 'model.json'}: no model can be made of it ({error}); train again"
        ) from error
    try:
        check_regular(folder / "model.safetensors")
        model.load_state_dict(load_file(folder / "model.safetensors"))
    except (OSError, RuntimeError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder / 'model.safetensors'} does not fit model.json: {error}; train again"
        ) from error
    return model.eval(), description["classes"]
