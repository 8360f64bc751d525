"""The gated layer against a loop over rows and requests."""

import pytest
import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from o3_lightning.common.errors import InputError
from o3_lightning.gating.linear import GatedLinear


def make_layer(kind, wide=6, out=5, ranks=(2, 3, 1)):
    torch.manual_seed(0)
    inner = nn.Linear(wide, out) if kind == "linear" else Conv1D(out, wide)
    factors = {number: (torch.randn(rank, wide), torch.randn(out, rank)) for number, rank in enumerate(ranks)}
    return GatedLinear(inner.requires_grad_(False), factors)


def expected_rows(layer, x, weights):
    """Each row alone, each request's product on its own."""
    rows = []
    for row in range(x.shape[0]):
        y = layer.inner(x[row])
        for number, (a, b) in layer.factors.items():
            y = y + weights[row, number] * (x[row] @ a.T @ b.T)
        rows.append(y)
    return torch.stack(rows)


@pytest.mark.parametrize("kind", ["linear", "conv1d"])
@pytest.mark.parametrize("shape", [(4, 3, 6), (4, 6), (4, 2, 3, 6), (4, 1, 6)])
@pytest.mark.parametrize("recorded", [False, True])
def test_rows_equal_a_loop_over_rows_and_requests(kind, shape, recorded):
    layer, x = make_layer(kind), torch.randn(shape)
    weights = torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.5], [0.2, 0.3, 0.9], [0.0, 0.0, 1.0]])
    layer.activate([0, 1, 2], weights)
    with torch.set_grad_enabled(recorded):
        torch.testing.assert_close(layer(x), expected_rows(layer, x, weights), atol=1e-5, rtol=1e-5)
        assert torch.equal(layer(x)[0], layer.inner(x)[0])


def test_only_named_requests_act():
    layer, x, weights = make_layer("linear"), torch.randn(2, 3, 6), torch.ones(2, 3)
    layer.activate([1], weights)
    torch.testing.assert_close(layer(x), expected_rows(layer, x, torch.tensor([[0.0, 1, 0]] * 2)))
    layer.activate([7], weights)
    assert torch.equal(layer(x), layer.inner(x))
    layer.activate([0], weights)
    layer.deactivate()
    assert torch.equal(layer(x), layer.inner(x))


def test_repeated_rows_repeat_their_weights():
    layer, x, weights = make_layer("linear"), torch.randn(2, 3, 6), torch.tensor([[1.0, 0, 0], [0, 0.5, 0]])
    layer.activate([0, 1, 2], weights)
    repeated = layer(x.repeat_interleave(3, dim=0))
    torch.testing.assert_close(repeated, layer(x).repeat_interleave(3, dim=0))
    with pytest.raises(InputError, match="expected a multiple of 2 rows, got 3"):
        layer(torch.randn(3, 2, 6))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays_within_its_rounding(dtype):
    layer, x = make_layer("linear"), torch.randn(2, 3, 6)
    weights = torch.tensor([[1.0, 0.5, 0], [0, 0, 0]])
    layer.activate([0, 1, 2], weights)
    exact = expected_rows(layer, x, weights)
    layer.inner.to(dtype)
    got = layer(x.to(dtype))
    assert got.dtype == dtype
    torch.testing.assert_close(got.float(), exact, atol=0.15, rtol=0.03)  # a few roundings of 8 or 11 bits


def test_gradient_reaches_the_input():
    layer, x = make_layer("linear"), torch.randn(2, 3, 6, requires_grad=True)
    weights = torch.tensor([[1.0, 0.5, 0], [0, 0, 0.3]])
    layer.activate([0, 1, 2], weights)
    (got,) = torch.autograd.grad(layer(x).sin().sum(), x)
    (expected,) = torch.autograd.grad(expected_rows(layer, x, weights).sin().sum(), x)
    torch.testing.assert_close(got, expected)


def test_what_a_model_reads_off_its_layers_is_the_inner_layers():
    layer = make_layer("linear")
    assert layer.weight is layer.inner.weight
    assert layer.in_features == 6
    with pytest.raises(AttributeError, match="nonsense"):
        layer.nonsense  # noqa: B018


def test_other_layers_and_other_shapes_are_refused():
    with pytest.raises(InputError, match="got Embedding"):
        GatedLinear(nn.Embedding(3, 4), {})
    with pytest.raises(InputError, match=r"expected A \[R,6\] and B \[5,R\], got \(2, 7\) and \(5, 2\)"):
        GatedLinear(nn.Linear(6, 5), {0: (torch.ones(2, 7), torch.ones(5, 2))})
