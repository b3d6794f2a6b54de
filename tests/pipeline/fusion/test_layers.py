"""Layers of the MDAT code: equal to the public ones, blind to padding, finite without frames."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from features.errors import ParamsError
from features.stream import Stream
from pipeline.fusion._parts.layers import (
    MLP,
    AttentionStage,
    AttentivePool,
    Encoder,
    PitchBranch,
    SwiGLU,
    make_classifier,
    renamed,
)
from pipeline.fusion.gat import CoAttention, GraphAttention, Graphs
from tests.support.models.golden import golden

LAYERS = {name: torch.from_numpy(array) for name, array in golden("fusion_layers.npz").items()}
TOLERANCE = 1e-5


def filled(module: nn.Module, **weights: str) -> Any:
    """The module with golden weights, by `our_name="golden name"` ("__" for the dot)."""
    state = {ours.replace("__", "."): LAYERS[theirs] for ours, theirs in weights.items()}
    module.load_state_dict(state)
    return module.eval()


def whole(name: str) -> Stream:
    values = LAYERS[name]
    return Stream(values, torch.ones(values.shape[:2], dtype=torch.bool))


def ragged(name: str) -> Stream:
    """The golden input cut to its lengths, with values in the padding that must not be seen."""
    lengths = LAYERS["text_lengths" if "text" in name else "audio_lengths"]
    mask = torch.arange(LAYERS[name].shape[1]) < lengths[:, None]
    return Stream(LAYERS[name].masked_fill(~mask[..., None], 7.0), mask)


def assert_close(found: Tensor, expected: Tensor) -> None:
    assert found.shape == expected.shape
    assert (found - expected).abs().max() <= TOLERANCE


def assert_trimmed(found: Stream, name: str) -> None:
    for item, values in enumerate(found.unpad()):
        assert_close(values, LAYERS[f"{name}_item{item}_trimmed"])


def graph_attention() -> Any:
    return filled(GraphAttention(12, 16), transform__weight="graph_W", score="graph_a")


@torch.inference_mode()
def test_graph_attention_equals_the_public_one() -> None:
    layer = graph_attention()
    assert_close(layer(whole("graph_in")).values, LAYERS["graph_out"])
    assert_trimmed(layer(ragged("graph_in")), "graph_out")


@torch.inference_mode()
def test_co_attention_equals_the_public_one() -> None:
    layer = filled(CoAttention(16), first__weight="co_Ua", second__weight="co_Ut")
    audio, text = layer(whole("co_audio_in"), whole("co_text_in"))
    assert_close(audio, LAYERS["co_audio_out"])
    assert_close(text, LAYERS["co_text_out"])
    a, t = ragged("co_audio_in"), ragged("co_text_in")
    audio, text = layer(a, t)
    assert_trimmed(Stream(audio, a.mask), "co_audio_out")
    assert_trimmed(Stream(text, t.mask), "co_text_out")


@torch.inference_mode()
def test_attentive_pool_equals_the_public_one() -> None:
    layer = filled(AttentivePool(16), score__weight="pool_weight", score__bias="pool_bias")
    assert_close(layer.weights(whole("pool_in")), LAYERS["pool_weights"])
    assert_close(layer(whole("pool_in")), LAYERS["pool_out"])
    for item, vector in enumerate(layer(ragged("pool_in"))):
        assert_close(vector, LAYERS[f"pool_out_item{item}_trimmed"])


@torch.inference_mode()
def test_classifiers_equal_the_public_ones() -> None:
    names = {"gate": "W", "value": "V", "output": "W2"}
    weights = {
        f"{ours}__{part}": f"swiglu_{theirs}_{part}"
        for ours, theirs in names.items()
        for part in ("weight", "bias")
    }
    layer = filled(make_classifier("swiglu", 12, 10, 8, 0.5), **weights)
    assert_close(layer(LAYERS["swiglu_in"]), LAYERS["swiglu_out"])
    weights = {
        f"{n}__{part}": f"mlp_layers_{n}_{part}" for n in (0, 3) for part in ("weight", "bias")
    }
    layer = filled(make_classifier("plain", 12, 10, 8, 0.5), **weights)
    assert_close(layer(LAYERS["mlp_in"]), LAYERS["mlp_out"])


def test_classifiers_without_a_hidden_width_are_as_wide_as_their_input() -> None:
    assert isinstance(plain := make_classifier("plain", 6, None, 3, 0.0), MLP)
    assert plain[0].weight.shape == (6, 6)
    assert not any(bias.any() for name, bias in plain.named_parameters() if "bias" in name)
    assert isinstance(gated := make_classifier("swiglu", 6, None, 3, 0.0), SwiGLU)
    assert gated.gate.weight.shape == (6, 6)


def naive(layer: GraphAttention, stream: Stream) -> Tensor:
    """The definition, one head, every pair side by side: `[B, T, T, 2 D]`."""
    nodes = layer.nodes(stream)[:, 0]
    T = nodes.shape[1]
    pairs = torch.cat(
        [nodes[:, :, None].expand(-1, -1, T, -1), nodes[:, None].expand(-1, T, -1, -1)], dim=-1
    )
    scores = F.leaky_relu(pairs @ layer.score[0], 0.2)
    return scores.masked_fill(~stream.mask[:, None], -torch.inf).softmax(-1) @ nodes


class LargestTensor(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes how many elements the largest tensor has that any operation returns."""

    numel = 0

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        del types
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, Tensor):
                self.numel = max(self.numel, tensor.numel())
        return result


def test_decomposed_score_equals_the_naive_one_in_value_and_gradient() -> None:
    torch.manual_seed(0)
    layer, stream = GraphAttention(12, 16), ragged("graph_in")
    gradients = []
    for form in (lambda s: layer(s).values, lambda s: naive(layer, s)):
        layer.zero_grad()
        result = form(stream)[stream.mask]
        result.square().sum().backward()
        gradients.append([result, *(p.grad for p in layer.parameters())])
    for decomposed, expected in zip(*gradients, strict=True):
        assert torch.allclose(decomposed, expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("heads", [1, 4])
def test_tensor_of_all_pairs_is_never_made(heads: int) -> None:
    T, D = 96, 8
    layer, stream = GraphAttention(D, D, heads), Stream.pad([torch.randn(T, D)])
    with LargestTensor() as largest:  # type: ignore[no-untyped-call]
        layer(stream).values.square().sum().backward()
    assert largest.numel == heads * T * T
    with LargestTensor() as largest:  # type: ignore[no-untyped-call]  # the probe sees it
        naive(GraphAttention(D, D), stream)
    assert largest.numel == T * T * 2 * D


@torch.inference_mode()
def test_heads_are_graph_attentions_of_their_own_side_by_side() -> None:
    layer, stream = GraphAttention(12, 16, heads=4), ragged("graph_in")
    parts = []
    for head in range(4):
        single = GraphAttention(12, 4)
        single.transform.weight.copy_(layer.transform.weight[4 * head : 4 * head + 4])
        single.score.copy_(layer.score[head : head + 1])
        parts.append(single(stream).values)
    assert torch.allclose(layer(stream).values, torch.cat(parts, dim=-1), atol=1e-6)


@torch.inference_mode()
def test_graph_layers_have_elu_between_them() -> None:
    layers, stream = Graphs(12, 3, 1), ragged("graph_in")
    values = stream.values
    for number, layer in enumerate(layers):
        values = layer(Stream(F.elu(values) if number else values, stream.mask)).values
    assert torch.equal(layers(stream).values, values)


def test_graph_attention_refuses_heads_that_do_not_divide() -> None:
    with pytest.raises(ParamsError, match="heads 3; expected a divisor of d_model, 16"):
        GraphAttention(12, 16, heads=3)


LAYERS_OF_STREAMS: dict[str, Callable[[Stream, Stream], Tensor]] = {
    "graphs": lambda a, _: Graphs(16, 2, 2)(a).values,
    "co": lambda a, b: CoAttention(16)(a, b)[0],
    "co, from the other": lambda a, b: CoAttention(16)(a, b)[1],
    "exchange": lambda a, b: CoAttention(16).exchange(a, b)[1].values,
    "collect": lambda a, b: CoAttention(16).collect(b, [a]).values,
    "cross": lambda a, b: AttentionStage(16, 2, 0.0)(b, a).values,
    "encoder": lambda a, _: Encoder(16, 2, 0.0)(a).values,
    "pool": lambda a, _: AttentivePool(16)(a),
}


@pytest.mark.parametrize("name", LAYERS_OF_STREAMS)
def test_utterance_without_frames_is_finite_and_so_is_its_gradient(name: str) -> None:
    torch.manual_seed(0)
    first = torch.randn(2, 5, 16, requires_grad=True)
    empty = Stream(first, torch.tensor([[True] * 5, [False] * 5]))
    full = Stream(torch.randn(2, 3, 16), torch.ones(2, 3, dtype=torch.bool))
    result = LAYERS_OF_STREAMS[name](empty, full)
    assert torch.isfinite(result).all()
    result.square().sum().backward()  # type: ignore[no-untyped-call]
    assert first.grad is not None
    assert torch.isfinite(first.grad).all()


def test_nothing_is_gathered_from_an_utterance_without_frames() -> None:
    full, empty = ragged("co_text_in"), ragged("co_audio_in")
    empty = Stream(empty.values, torch.zeros_like(empty.mask))
    assert not CoAttention(16)(empty, full)[1].any()
    assert not AttentivePool(16)(empty).any()
    assert not GraphAttention(16, 16)(empty).values.any()
    assert torch.equal(CoAttention(16).exchange(empty, full)[1].values, full.values)


def test_padded_bins_take_the_last_row_of_the_embedding() -> None:
    branch = PitchBranch(4, 3, 5, 0.0)
    assert branch.embedding.num_embeddings == 5
    stream = Stream.pad([torch.tensor([1, 2]), torch.tensor([3])])
    last = branch.projection(branch.embedding.weight[4])
    assert torch.allclose(branch(stream).values[1, 1], last)


def test_public_names_may_carry_the_training_wrappers_prefix() -> None:
    weights = {"model.a.0.weight": torch.ones(1), "criterion.weight": torch.ones(2)}
    assert renamed(weights, {"a": "b"}).keys() == {"b.0.weight"}


def test_longest_public_prefix_wins_and_none_leaves_out() -> None:
    weights = {name: torch.ones(1) for name in ("a.x.w", "a.y.w", "a.xx.w")}
    assert renamed(weights, {"a": None, "a.x": "b"}).keys() == {"b.w"}


def test_unknown_public_name_is_named() -> None:
    with pytest.raises(ParamsError, match=r"given the weight 'lstm.w'; expected .*\['a'\]"):
        renamed({"lstm.w": torch.ones(1)}, {"a": "b"})
