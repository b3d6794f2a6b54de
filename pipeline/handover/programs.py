"""A fusion as a program that runs without heronry: `torch.export`, and ONNX.

A program takes what caches hold: frames by slot, `[B, T, D]` (bins: `[B, T]`, int64), and a mask of
the frames that exist, `[B, T]`; for dialogues the frames are turns, as many in each slot. It gives
the outputs of the last layer, `[B, O]` or `[B, N, O]` (`pipeline.model.outputs`), whose first
columns are the logits of the classes. B and every T may be any number from 1.

Each is compared with the model on batches of other shapes before it is kept. A fusion that cannot
be traced, or differs, has no program, and the reason is recorded.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from features.files.writing import follow_umask
from features.settings.extras import check_installed
from features.stream import Stream, StreamSpec
from pipeline.handover.layout import ONNX, PROGRAM
from pipeline.model.base import FusionModel, Unit
from pipeline.model.batch import Batch

Specs = Mapping[str, StreamSpec]
Tensors = dict[str, Tensor]
TRACED = (3, 5)  # rows and frames of the batch that is traced
OTHERS = ((1, 1), (2, 3), (5, 9))  # those of the batches that are compared
RTOL, ATOL = 1e-5, 1e-6
NEEDED = ("onnx", "onnxruntime", "onnxscript")
# It warns of each operator of torchvision, which no fusion uses.
_REGISTRY = "torch.onnx._internal.exporter._registration"


class Function(nn.Module):
    """A fusion as a function of tensors, `[B, O]` or, of a model over dialogues, `[B, N, O]`.

    Args:
        model: The fusion, in eval mode.
    """

    def __init__(self, model: FusionModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, frames: Tensors, masks: Tensors) -> Tensor:
        """Outputs for frames and masks by slot."""
        if self.model.unit == "dialogue":
            first = next(iter(frames.values()))
            same: Any = torch._check  # not typed
            for values in frames.values():
                same(values.shape[1] == first.shape[1])  # one length is traced, not several
        streams = {slot: Stream(values, masks[slot]) for slot, values in frames.items()}
        outputs: Tensor = self.model(Batch(streams)).logits
        return outputs


def write_programs(folder: Path, model: FusionModel, specs: Specs, *, onnx: bool) -> dict[str, str]:
    """Write `fusion.pt2` and, if asked for, `fusion.onnx`.

    Args:
        folder: Folder of a seed and fold.
        model: The fusion, in eval mode on the CPU.
        specs: Streams by slot.
        onnx: Whether to write an ONNX program as well.

    Returns:
        Reasons by name of those that were not written.
    """
    try:
        program = traced(model, specs)
        check_same(_called(program.module()), model, specs)
    except Exception as error:  # tracing runs any fusion's code on values that are not there
        return dict.fromkeys(names(onnx=onnx), f"torch.export: {_first_line(error)}")
    torch.export.save(program, folder / PROGRAM)
    follow_umask(folder / PROGRAM)
    if not onnx:
        return {}
    try:
        _write_onnx(folder / ONNX, program, specs)
        check_same(_session(folder / ONNX), model, specs)
    except Exception as error:  # an operator that the converter or the runtime lacks
        (folder / ONNX).unlink(missing_ok=True)
        return {ONNX: f"torch.onnx: {_first_line(error)}"}
    return {}


def names(*, onnx: bool) -> tuple[str, ...]:
    """Names of the programs to write."""
    return (PROGRAM, ONNX) if onnx else (PROGRAM,)


def check_onnx() -> None:
    """Refuse to write ONNX programs where a package for it is not installed.

    Raises:
        ParamsError: Naming them.
    """
    check_installed("--onnx", NEEDED, "onnx", ", or leave the option out")


def traced(model: FusionModel, specs: Specs) -> torch.export.ExportedProgram:
    """The fusion as a program for any number of rows and frames."""
    function = Function(model).eval()
    frames, masks = example(specs, model.unit, *TRACED)
    rows, dims = torch.export.Dim("rows", min=1), {}
    for slot in specs:
        name = "turns" if model.unit == "dialogue" else f"frames_of_{slot}"
        dims[slot] = {0: rows, 1: torch.export.Dim(name, min=1)}
    with warnings.catch_warnings():  # of torch, about its own modules and its scan
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.filterwarnings("ignore", r"The \.grad attribute", UserWarning)
        program = torch.export.export(
            function, (frames, masks), dynamic_shapes={"frames": dims, "masks": dict(dims)}
        )
    for part in program.graph_module.modules():
        for node in part.graph.nodes if isinstance(part, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)  # paths of this machine
    return program


def check_same(
    program: Callable[[Tensors, Tensors], Tensor], model: FusionModel, specs: Specs
) -> None:
    """Compare a program with its model on batches of other shapes than the traced one.

    Raises:
        ArithmeticError: If they differ by more than rounding.
    """
    function = Function(model).eval()
    for rows, length in OTHERS:
        frames, masks = example(specs, model.unit, rows, length)
        with torch.inference_mode():
            expected, found = function(frames, masks), program(frames, masks)
        # Rounding is that of the largest numbers, from which small outputs come by subtraction.
        atol = max(ATOL, RTOL * float(expected.nan_to_num(posinf=0.0, neginf=0.0).abs().max()))
        if not torch.allclose(found, expected, rtol=RTOL, atol=atol):
            apart = float((found - expected).abs().max())
            raise ArithmeticError(f"differs from the model by {apart:.3g} for {rows} rows")


def example(specs: Specs, unit: Unit, rows: int, length: int) -> tuple[Tensors, Tensors]:
    """Frames and masks of a batch: each slot has its own length, and each row its own padding."""
    generator = torch.Generator().manual_seed(length)
    frames, masks = {}, {}
    for place, (slot, spec) in enumerate(specs.items()):
        longest = length if unit == "dialogue" else length + place
        lengths = (longest - torch.arange(rows)).clamp(min=1)
        masks[slot] = torch.arange(longest) < lengths[:, None]
        if spec.bins is None:
            values = torch.randn(rows, longest, spec.dim, generator=generator)
            frames[slot] = values * masks[slot][..., None]
        else:
            bins = torch.randint(spec.bins, (rows, longest), generator=generator)
            frames[slot] = bins * masks[slot]
    return frames, masks


def input_names(specs: Specs) -> list[str]:
    """Names of an ONNX program's inputs, in order: `<slot>`, then `<slot>_mask`."""
    return [*specs, *(f"{slot}_mask" for slot in specs)]


def _write_onnx(path: Path, program: torch.export.ExportedProgram, specs: Specs) -> None:
    logging.getLogger(_REGISTRY).setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch, about its own code
        converted = torch.onnx.export(
            program,
            input_names=input_names(specs),
            output_names=["outputs"],
            dynamo=True,
            verbose=False,
        )
    assert converted is not None
    converted.save(path)


def _session(path: Path) -> Callable[[Tensors, Tensors], Tensor]:
    """A program of ONNX as a function."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    known = {each.name for each in session.get_inputs()}  # those that the fusion reads

    def run(frames: Tensors, masks: Tensors) -> Tensor:
        tensors = {**frames, **{f"{slot}_mask": mask for slot, mask in masks.items()}}
        given = {name: tensor.numpy() for name, tensor in tensors.items() if name in known}
        return torch.from_numpy(session.run(None, given)[0])

    return run


def _called(module: Any) -> Callable[[Tensors, Tensors], Tensor]:
    def run(frames: Tensors, masks: Tensors) -> Tensor:
        found: Tensor = module(frames, masks)
        return found

    return run


def _lines(error: BaseException) -> Iterator[str]:
    yield from (line.strip() for line in str(error).splitlines() if line.strip())


def _first_line(error: BaseException) -> str:
    return next(_lines(error), type(error).__name__)
