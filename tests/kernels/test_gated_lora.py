"""The public calls gated_lora and gated_lora_group on the CPU: values, gradients, dead rows, compiling."""

import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from kernel_cases import gated_inputs, relative_error

from o3_kernels import gated_lora, gated_lora_group, gated_lora_reference, live_rows


def group_reference(y, x, a, b, weights):
    S = weights.shape[1]
    return [gated_lora_reference(y_j, x, a[j * S : (j + 1) * S], b[j], weights) for j, y_j in enumerate(y)]


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(st.integers(0, 5), st.integers(0, 4), st.integers(1, 7), st.integers(0, 5)),
    outputs=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    seed=st.integers(0, 2**31),
)
def test_value_and_every_gradient_equal_reference(shape, outputs, seed):
    inputs = gated_inputs(*shape, tuple(outputs), seed=seed)
    y, x, a, b, weights = inputs
    leaves = [tensor.requires_grad_() for tensor in (*y, x, a, *b, weights)]
    got, wanted = gated_lora_group(*inputs), group_reference(*inputs)
    for got_j, wanted_j in zip(got, wanted, strict=True):
        assert relative_error(got_j, wanted_j) <= 1e-12
    ours = torch.autograd.grad(sum(t.sin().sum() for t in got), leaves)
    theirs = torch.autograd.grad(sum(t.sin().sum() for t in wanted), leaves)
    for our_part, their_part in zip(ours, theirs, strict=True):
        assert relative_error(our_part, their_part) <= 1e-11


@pytest.mark.parametrize("inplace", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_dead_rows_keep_their_bits(dtype, inplace):
    y, x, a, b, weights = gated_inputs(7, 3, 10, 6, (8,), dtype=dtype)
    dead = weights.eq(0).all(1)
    assert dead.any()
    assert not dead.all()
    x[dead] = torch.nan
    target = y[0].clone()
    got = gated_lora(target, x, a, b[0], weights, inplace=inplace)
    assert (got is target) == inplace
    assert torch.equal(got[dead].view(torch.uint8), y[0][dead].view(torch.uint8))
    wanted = gated_lora_reference(
        *(t.double()[~dead] for t in (y[0], x)), *(t.double() for t in (a, b[0])), weights[~dead].double()
    )
    assert relative_error(got[~dead], wanted) <= 4 * torch.finfo(dtype).eps


def test_registered_operators_equal_the_call():
    y, x, a, b, weights = gated_inputs(5, 2, 9, 8, (7, 6))
    wanted = gated_lora_group(y, x, a, b, weights)
    copies = [tensor.clone() for tensor in y]
    torch.ops.o3_kernels.gated_lora_(copies, x, a, b, weights)
    for results in (copies, torch.ops.o3_kernels.gated_lora(y, x, a, b, weights)):
        for got, wanted_j in zip(results, wanted, strict=True):
            assert torch.equal(got, wanted_j)


@pytest.mark.parametrize("dead", [(), (0, 3), (0, 1, 2, 3, 4)])
def test_known_live_rows_change_nothing(dead):
    y, x, a, b, weights = gated_inputs(5, 2, 9, 8, (7, 6))
    weights = weights + 0.1
    weights[list(dead)] = 0
    live = live_rows(weights)
    assert live.tolist() == [row for row in range(5) if row not in dead]
    wanted = gated_lora_group(y, x, a, b, weights)
    for got, wanted_j in zip(gated_lora_group(y, x, a, b, weights, live=live), wanted, strict=True):
        assert torch.equal(got, wanted_j)
    with pytest.raises(ValueError, match="live"):
        gated_lora_group(y, x, a, b, weights, live=weights.ne(0).any(1))


def test_all_weights_zero_equals_base_bitwise():
    y, x, a, b, weights = gated_inputs(4, 3, 10, 6, (8,), dtype=torch.float32)
    got = gated_lora(y[0], x, a, b[0], 0 * weights)
    assert torch.equal(got.view(torch.int32), y[0].view(torch.int32))
    assert got.data_ptr() != y[0].data_ptr()


def test_mixed_rows_equal_rows_alone():
    y, x, a, b, weights = gated_inputs(6, 3, 10, 6, (8,))
    together = gated_lora(y[0], x, a, b[0], weights)
    alone = [gated_lora(y[0][r : r + 1], x[r : r + 1], a, b[0], weights[r : r + 1]) for r in range(6)]
    assert relative_error(torch.cat(alone), together) <= 1e-12


def test_many_requests_equal_one_after_the_other():
    y, x, a, b, weights = gated_inputs(5, 2, 9, 8, (7,))
    wanted = y[0]
    for start in range(0, 8, 2):
        part = slice(start, start + 2)
        wanted = gated_lora(wanted, x, a[part], b[0][:, part], weights[:, part])
    assert relative_error(gated_lora(y[0], x, a, b[0], weights), wanted) <= 1e-12


def test_not_contiguous_inputs():
    y, x, a, b, weights = gated_inputs(4, 3, 10, 6, (8,))
    wanted = gated_lora_reference(y[0], x, a, b[0], weights)
    y[0], x = y[0].transpose(0, 1).contiguous().transpose(0, 1), x.mT.contiguous().mT
    assert (
        relative_error(gated_lora(y[0], x, a.T.contiguous().T, b[0].T.contiguous().T, weights), wanted)
        <= 1e-12
    )


def test_gradcheck():
    y, x, a, b, weights = gated_inputs(3, 2, 4, 3, (5,))
    leaves = [tensor.requires_grad_() for tensor in (y[0], x, a, b[0], weights)]
    assert torch.autograd.gradcheck(gated_lora, leaves)


def test_operators_are_well_registered():
    inputs = gated_inputs(3, 2, 4, 3, (5, 6))
    torch.library.opcheck(torch.ops.o3_kernels.gated_lora_, inputs)
    for tensor in (*inputs[0], *inputs[1:3], *inputs[3], inputs[4]):
        tensor.requires_grad_()
    torch.library.opcheck(torch.ops.o3_kernels.gated_lora, inputs)


class GatedLayer(torch.nn.Module):
    """A linear layer and its adapters, as the gate uses them."""

    def __init__(self, a, b, weights):
        super().__init__()
        self.base = torch.nn.Linear(a.shape[1], b.shape[0], dtype=a.dtype)
        self.a, self.b, self.weights = a, b, weights

    def forward(self, x):
        inplace = not torch.is_grad_enabled()
        return gated_lora(self.base(x), x, self.a, self.b, self.weights, inplace=inplace).relu()


def test_model_compiles_without_a_graph_break():
    _, x, a, b, weights = gated_inputs(3, 2, 4, 3, (5,))
    model = GatedLayer(a, b[0], weights)
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    assert relative_error(compiled(x), model(x)) <= 1e-12
    compiled(x).sum().backward()
    assert model.base.weight.grad is not None
    with torch.no_grad():
        assert relative_error(compiled(x), model(x)) <= 1e-12


def test_wrong_input_is_named():
    y, x, a, b, weights = gated_inputs(3, 2, 4, 3, (5,))
    for spoiled, match in [
        ((y[0][..., :2], x, a, b[0], weights), "y must be"),
        ((y[0], x[0], a, b[0], weights), "x must be"),
        ((y[0], x, a[:2], b[0], weights), "a must be"),
        ((y[0], x, a, b[0].T, weights), "b must be"),
        ((y[0], x, a, b[0], weights[:2]), "weights must be"),
        ((y[0].to("meta"), x, a, b[0], weights), "device"),
    ]:
        with pytest.raises(ValueError, match=match):
            gated_lora(*spoiled)
    with pytest.raises(TypeError, match="one dtype"):
        gated_lora(y[0].float(), x, a, b[0], weights)
    with pytest.raises(TypeError, match="weights"):
        gated_lora(y[0], x, a, b[0], weights.bool())
    with pytest.raises(ValueError, match="no_grad"):
        gated_lora(y[0], x.requires_grad_(), a, b[0], weights, inplace=True)
    with pytest.raises(ValueError, match="1 outputs and 0 b"):
        gated_lora_group(y, x, a, [], weights)
