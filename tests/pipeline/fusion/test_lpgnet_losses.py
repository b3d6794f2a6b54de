"""Gates, attention and losses of LPGNet equal the public ones (golden/README.md §3.6)."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from features.stream import Stream
from pipeline.fusion.lpgnet import MaskedAttention, MultimodalGate, UnimodalGate, distillation
from pipeline.model.batch import Batch, Prediction, Targets
from pipeline.model.losses.attributes import attribute_loss
from pipeline.model.losses.classes import CrossEntropy
from pipeline.model.losses.tasks import AttributeTask, ClassTask, TaskLosses
from pipeline.model.outputs import Outputs
from tests.support.models.golden import golden
from tests.support.models.small_lpgnet import close, small

GAMMAS = [(1.0, 1.0, 1.0), (1.0, 0.0, 1.0), (1.0, 1.0, 0.0), (1.5, 1.0, 0.0), (1.5, 1.0, 0.3)]


@pytest.fixture(scope="module")
def public() -> dict[str, Tensor]:
    arrays = golden("gates_losses.npz")
    return {name: torch.as_tensor(array) for name, array in arrays.items()}


def stream_of(public: Mapping[str, Tensor], name: str) -> Stream:
    return Stream(public[name], public["mask"].bool())


def weighted(module: Any, **weights: Tensor) -> Any:
    for name, weight in weights.items():
        module.get_parameter(name.replace("__", ".")).data.copy_(weight)
    return module


def test_gates_equal_the_public_ones(public: dict[str, Tensor]) -> None:
    gate = weighted(UnimodalGate(16), linear__weight=public["uni_W"])
    assert close(gate(public["uni_in"]), public["uni_out"])
    mixer = weighted(MultimodalGate(16), linear__weight=public["multi_W"])
    streams = [stream_of(public, f"multi_{name}") for name in ("text", "audio", "third")]
    exist = streams[0].mask
    for number, name in ((2, "two"), (3, "three")):
        fused = mixer(streams[:number])
        assert torch.equal(fused.mask, exist)
        assert close(fused.values[exist], public[f"multi_out_{name}"][exist])


def test_attention_equals_the_public_one(public: dict[str, Tensor]) -> None:
    text, audio = stream_of(public, "multi_text"), stream_of(public, "multi_audio")
    exist = text.mask
    plain = MaskedAttention(16, 1, project=False)
    assert close(plain(text, text)[exist], public["attn_self_text"][exist])
    assert close(plain(audio, text)[exist], public["attn_q_audio_kv_text"][exist])
    assert not plain(audio, text)[~exist].any()
    maps = {
        f"{name}__{kind}": public[f"mha4_{name[0]}_{short}"]
        for name in ("query", "key", "value")
        for kind, short in (("weight", "W"), ("bias", "b"))
    }
    attended = weighted(MaskedAttention(16, 4, project=True), **maps)(audio, text)
    found = F.linear(attended, public["mha4_out_W"], public["mha4_out_b"])
    assert close(found[exist], public["mha4_q_audio_kv_text"][exist])


def public_batch(public: Mapping[str, Tensor]) -> tuple[Prediction, Batch]:
    """The golden logits as leaves, with labels that are -1 where the mask is 0."""
    logits = {n: public[f"logits_{n}"].clone().requires_grad_() for n in ("main", "text", "audio")}
    labels = public["labels"].masked_fill(public["mask"] == 0, -1)
    extras = {"text": logits["text"], "speech": logits["audio"]}
    return Prediction(logits["main"], extras), Batch({}, labels)


@pytest.mark.parametrize("gammas", GAMMAS)
def test_loss_is_composed_of_the_public_ones(
    gammas: tuple[float, float, float], public: dict[str, Tensor]
) -> None:
    """Over the paper's grid; three of its rows are golden themselves."""
    prediction, batch = public_batch(public)
    task, ce, kl = gammas
    model = small(gamma_task=task, gamma_ce=ce, gamma_kl=kl)
    found = model.loss(prediction, batch).double()
    expected = (
        gammas[0] * public["nll_main"]
        + gammas[1] * (public["nll_text"] + public["nll_audio"])
        + gammas[2] * (public["kl_text_t1"] + public["kl_audio_t1"])
    )
    assert close(found, expected)
    name = "total_" + "_".join(f"{gamma:g}" for gamma in gammas) + "_t1"
    if name in public:
        assert close(found, public[name].double())


@pytest.mark.parametrize("classes", [(), ("a", "b")])
def test_students_follow_classes_by_divergence_and_attributes_by_distance(
    classes: tuple[str, ...],
) -> None:
    """Every head has the composite loss; a softmax over attributes would have no meaning."""
    torch.manual_seed(0)
    outputs = Outputs(classes, ("x", "y"), (), {"x": (0.0, 1.0), "y": (0.0, 1.0)})
    tasks: list[Any] = [AttributeTask(outputs, partial(attribute_loss, "mse"), cuts=True)]
    tasks += [ClassTask(outputs, CrossEntropy())] if classes else []
    criterion = TaskLosses(tasks, {"classes": 1.0, "attributes": 0.5})
    present = torch.tensor([[True, True, True], [True, False, False]])
    labels = torch.tensor([[0, 1, -1], [1, -1, -1]])
    values = torch.rand(2, 3, 2)
    values[0, 0, 0] = torch.nan
    targets = Targets(present, labels, values=values).numbered()
    heads = [torch.randn(2, 3, outputs.width) for _ in range(3)]
    model = small(gamma_task=1.5, gamma_ce=1.0, gamma_kl=0.3, tau=2.0)
    model.criterion = criterion
    prediction = Prediction(heads[0], {"text": heads[1], "speech": heads[2]})
    found = model.loss(prediction, Batch({}, labels, targets=targets))
    fused, *students = [head[present] for head in heads]
    truth = targets.scored()
    expected = 1.5 * criterion(fused, truth)
    for student in students:
        expected = expected + criterion(student, truth)
        squares = (outputs.of_attributes(student) - outputs.of_attributes(fused)) ** 2
        expected = expected + 0.3 * squares.mean()
        if classes:
            kl = distillation(outputs.of_classes(fused), outputs.of_classes(student), 2.0)
            expected = expected + 0.3 * kl
    assert close(found, expected)


def test_loss_takes_the_protocols_criterion_for_all_heads(public: dict[str, Tensor]) -> None:
    prediction, batch = public_batch(public)
    model = small(gamma_kl=0.0)
    model.criterion = CrossEntropy(public["class_weights"])
    expected = 1.5 * public["nll_weighted_main"]
    expected = expected + public["nll_weighted_text"] + public["nll_weighted_audio"]
    assert close(model.loss(prediction, batch).double(), expected)


def test_distillation_and_its_gradients_equal_the_public_ones(public: dict[str, Tensor]) -> None:
    prediction, batch = public_batch(public)
    assert batch.labels is not None
    exist = batch.labels >= 0
    for tau in (1, 2):
        for slot, name in (("text", "text"), ("speech", "audio")):
            student = prediction.extras[slot][exist]
            found = distillation(prediction.logits[exist], student, tau)
            assert close(found.double(), public[f"kl_{name}_t{tau}"])
    distillation(prediction.logits[exist], prediction.extras["text"][exist], 2).backward()  # type: ignore[no-untyped-call]
    for leaf, name in ((prediction.logits, "main"), (prediction.extras["text"], "text")):
        assert leaf.grad is not None
        assert torch.isfinite(leaf.grad).all()
        assert close(leaf.grad, public[f"kl_text_t2_grad_{name}"])


def test_teacher_gets_a_gradient_unless_detached(public: dict[str, Tensor]) -> None:
    grads = []
    settings: list[dict[str, Any]] = [{}, {"detach_teacher": True}, {"gamma_kl": 0.0}]
    for args in settings:
        prediction, batch = public_batch(public)
        small(**args).loss(prediction, batch).backward()  # type: ignore[no-untyped-call]
        assert prediction.logits.grad is not None
        grads.append(prediction.logits.grad)
    assert not close(grads[0], grads[2], 1e-4)
    assert close(grads[1], grads[2])
