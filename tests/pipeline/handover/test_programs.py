"""Programs of the fusions give what the models give, at other shapes than were traced."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from features.stream import StreamSpec
from pipeline.handover.layout import ONNX, PROGRAM
from pipeline.handover.programs import (
    ATOL,
    RTOL,
    Function,
    Specs,
    example,
    input_names,
    write_programs,
)
from pipeline.model.base import FusionModel
from pipeline.model.checkpoint import make_model
from tests.support.models.small_fusions import ALL, CLASSES, SMALL, small, specs_of
from tests.support.paths import ROOT

SHAPES = [(1, 1), (1, 8), (4, 2), (3, 11)]
REFUSED = {
    "one length for two": ("lpgnet", {"level": "frame"}, "Constraints violated"),
    "rows by value": ("lpgnet", {"global_context": "sequence"}, "data-dependent"),
}
INPUTS: dict[str, Any] = {
    "mix_layers": True,
    "standardize": ("speech",),
    "layer_norm": ("text",),
    "attentive_statistics": ("speech",),
}


def check(folder: Path, model: FusionModel, specs: Specs) -> None:
    """Compare both programs with the model; frames behind the mask are never seen."""
    import onnxruntime

    program = torch.export.load(folder / PROGRAM).module()
    session = onnxruntime.InferenceSession(folder / ONNX, providers=["CPUExecutionProvider"])
    known = {each.name for each in session.get_inputs()}
    assert known <= {*input_names(specs)}
    for rows, length in SHAPES:
        frames, masks = example(specs, model.unit, rows, length)
        with torch.inference_mode():
            expected = Function(model)(frames, masks)
            assert torch.allclose(program(frames, masks), expected, rtol=RTOL, atol=ATOL)
        given = dict(zip(input_names(specs), [*frames.values(), *masks.values()], strict=True))
        (found,) = session.run(None, {n: x.numpy() for n, x in given.items() if n in known})
        assert np.allclose(found, expected, rtol=10 * RTOL, atol=10 * ATOL)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ALL)
def test_every_fusion(kind: str, tmp_path: Path) -> None:
    specs, model = specs_of(kind), small(kind)
    assert write_programs(tmp_path, model, specs, onnx=True) == {}
    check(tmp_path, model, specs)
    with zipfile.ZipFile(tmp_path / PROGRAM) as archive:  # no paths of this machine
        assert not any(str(ROOT).encode() in archive.read(name) for name in archive.namelist())
    assert str(ROOT).encode() not in (tmp_path / ONNX).read_bytes()


@pytest.mark.slow
def test_layers_before_the_fusion(tmp_path: Path) -> None:
    specs = {"text": StreamSpec(24, layers=2), "speech": StreamSpec(10, hop_seconds=0.02)}
    torch.manual_seed(0)
    model = make_model("concat", SMALL["concat"], specs, CLASSES, inputs=INPUTS).eval()
    assert write_programs(tmp_path, model, specs, onnx=True) == {}
    check(tmp_path, model, specs)


@pytest.mark.slow
def test_large_numbers_may_round_by_more(tmp_path: Path) -> None:
    """As behind a dimension that hardly varied in training, which standardisation blows up."""
    specs = {"speech": StreamSpec(10, hop_seconds=0.02)}
    torch.manual_seed(0)
    inputs = {"standardize": ("speech",)}
    model = make_model("concat", SMALL["concat"], specs, CLASSES, inputs=inputs).eval()
    statistics = {name.rpartition(".")[2]: each for name, each in model.named_buffers()}
    statistics["std"][0], _ = 2.7e-8, statistics["frames"].fill_(100)
    assert write_programs(tmp_path, model, specs, onnx=True) == {}


@pytest.mark.parametrize(("kind", "args", "reason"), REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_traced_has_its_reason(
    kind: str, args: dict[str, Any], reason: str, tmp_path: Path
) -> None:
    lacking = write_programs(tmp_path, small(kind, **args), specs_of(kind), onnx=True)
    assert list(lacking) == [PROGRAM, ONNX]
    assert all(why.startswith("torch.export: ") and reason in why for why in lacking.values())
    assert list(tmp_path.iterdir()) == []


class Draws(FusionModel):
    """Gives other numbers each time, as no program can."""

    def forward(self, batch: Any) -> Any:
        from pipeline.model.batch import Prediction

        values = batch.streams["text"].values
        return Prediction(torch.rand(values.shape[0], 2))


def test_a_program_that_differs_is_not_kept(tmp_path: Path) -> None:
    specs = {"text": StreamSpec(3)}
    lacking = write_programs(tmp_path, Draws().eval(), specs, onnx=False)
    assert "differs from the model by" in lacking[PROGRAM]
    assert list(tmp_path.iterdir()) == []
