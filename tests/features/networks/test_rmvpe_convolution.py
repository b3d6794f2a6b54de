"""RMVPE's fused convolutions equal convolution, norm and ReLU one after the other."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from features.networks import rmvpe
from features.networks.rmvpe import as_product, normed
from tests.contracts.checkpoints.f0 import golden_weights
from tests.support.models.golden import golden

# (frames, bands) such that the norm goes into the weights, or into the result of a convolution or
# of a matrix product.
PLACES = [(32, 16), (8, 8), (4, 4)]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("places", PLACES)
def test_fused_passes_equal_the_layers(
    places: tuple[int, int], transposed: bool, layout: torch.memory_format
) -> None:
    torch.manual_seed(0)
    options = {"stride": 2, "output_padding": 1} if transposed else {}
    make = nn.ConvTranspose2d if transposed else nn.Conv2d
    conv, norm = make(40, 32, 3, padding=1, bias=False, **options), nn.BatchNorm2d(32).eval()  # type: ignore[arg-type]
    for tensor in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
        assert tensor is not None
        tensor.uniform_(0.5, 2.0)
    conv = conv.to(memory_format=layout)  # type: ignore[call-overload]
    x = torch.randn(1, 40, *places).contiguous(memory_format=layout)
    with torch.inference_mode():
        expected = norm(conv(x)).relu()
        found = normed(x, conv, norm)
    assert torch.allclose(found, expected, atol=1e-5)
    assert 0.1 < float((expected > 0).float().mean()) < 0.99


def test_the_matrix_product_equals_the_convolution() -> None:
    x, weight = torch.randn(2, 3, 5, 4).double(), torch.randn(7, 3, 3, 3).double()
    expected = nn.functional.conv2d(x, weight, padding=1)
    assert torch.allclose(as_product(x, weight), expected, atol=1e-12)


@pytest.mark.slow
def test_the_layout_of_the_weights_changes_no_number() -> None:
    network = rmvpe.build(golden_weights())
    mel, other = torch.from_numpy(golden("rmvpe.npz")["mel64"])[None], copy.deepcopy(network)
    other.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    weight = "unet.encoder.layers.1.conv.0.conv.0.weight"
    assert network.get_parameter(weight).stride() != other.get_parameter(weight).stride()
    with torch.inference_mode():
        assert float((network(mel) - other(mel)).abs().max()) < 1e-6
