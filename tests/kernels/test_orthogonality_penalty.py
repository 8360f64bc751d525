"""The public call orthogonality_penalty on the CPU: value, gradient, streaming, parity, torch.compile."""

import json
import os
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parent))
from kernel_cases import penalty_inputs, relative_error

from o3_kernels import (
    orthogonality_penalty,
    orthogonality_penalty_reference,
    stack_history,
)
from o3_kernels.ops.orthogonality_penalty import vectorised
from o3_kernels.ops.orthogonality_penalty.operator import Penalty, penalty_on_device
from o3_kernels.ops.orthogonality_penalty.vectorised import penalty_by_group

ORACLES = Path(os.environ.get("O3_ORACLES", Path(__file__).parents[1] / "oracles"))


def value_and_gradient(penalty, new, old):
    leaves = [tensor.clone().requires_grad_() for tensor in new]
    value = penalty(leaves, old)
    (3 * value).backward()
    return value.detach(), [torch.zeros_like(t) if t.grad is None else t.grad for t in leaves]


def assert_same(got, wanted, tolerance):
    assert relative_error(got[0], wanted[0]) <= tolerance
    for got_m, wanted_m in zip(got[1], wanted[1], strict=True):
        assert relative_error(got_m, wanted_m) <= tolerance


@settings(max_examples=40, deadline=None)
@given(
    widths=st.lists(st.integers(1, 9), min_size=1, max_size=6),
    sizes=st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 5)),
    seed=st.integers(0, 2**31),
    stacked=st.booleans(),
)
def test_value_and_gradient_equal_reference(widths, sizes, seed, stacked):
    new, old = penalty_inputs(tuple(widths), *sizes, seed=seed)
    wanted = value_and_gradient(orthogonality_penalty_reference, new, old)
    got = value_and_gradient(orthogonality_penalty, new, stack_history(old) if stacked else old)
    assert_same(got, wanted, 1e-12)


@pytest.mark.parametrize("rows", [1, 3, 20])
def test_blocks_of_any_size_give_the_same(monkeypatch, rows):
    new, old = penalty_inputs((8, 5, 8, 8, 5), 3, 5, 4)
    wanted = value_and_gradient(orthogonality_penalty_reference, new, old)
    monkeypatch.setattr(vectorised, "CACHE_BYTES", rows * 8 * 8 // torch.get_num_threads())
    assert_same(value_and_gradient(orthogonality_penalty, new, stack_history(old)), wanted, 1e-12)


def test_groups_hold_modules_of_one_shape_up_to_a_limit(monkeypatch):
    new, old = penalty_inputs((8, 5, 8, 8, 5), 3, 2, 4)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert vectorised.group_modules(new, old, 2 * old[0].numel() * 8) == [[0, 2], [3], [1, 4]]
    assert vectorised.group_modules(new, old) == [[0, 2, 3], [1, 4]]
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    assert vectorised.group_modules(new, old, 0) == [[0, 2, 3], [1, 4]]


@pytest.mark.parametrize("earlier", [1, vectorised.SHORT_HISTORY, vectorised.SHORT_HISTORY + 1, 12])
def test_short_and_long_histories_equal_the_reference(earlier):
    new, old = penalty_inputs((8, 5, 8), 3, earlier, 3)
    wanted = value_and_gradient(orthogonality_penalty_reference, new, old)
    assert_same(value_and_gradient(orthogonality_penalty, new, old), wanted, 1e-12)
    assert vectorised.is_short(new, old) == (earlier <= vectorised.SHORT_HISTORY)


@pytest.mark.parametrize("compute", [penalty_by_group, penalty_on_device])
def test_no_history_is_no_special_case(compute):
    new, old = penalty_inputs((256, 9), 3, 0, 2)
    leaves = [tensor.requires_grad_() for tensor in new]
    value = Penalty.apply(compute, old, *leaves)
    assert value == 0
    assert not any(gradient.any() for gradient in torch.autograd.grad(value, leaves))


def test_no_history_costs_nothing():
    new, old = penalty_inputs((6, 9), 3, 0, 2)
    value, gradient = value_and_gradient(orthogonality_penalty, new, old)
    assert value == 0
    assert not any(part.any() for part in gradient)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_half_types_are_summed_in_float32(dtype):
    new, old = penalty_inputs((40, 30), 4, 3, 4, dtype=dtype)
    value, gradient = value_and_gradient(orthogonality_penalty, new, old)
    wanted = value_and_gradient(
        orthogonality_penalty_reference, [t.double() for t in new], [t.double() for t in old]
    )
    assert value.dtype == torch.float32
    assert relative_error(value, wanted[0]) <= 1e-5
    for got_m, wanted_m in zip(gradient, wanted[1], strict=True):
        assert got_m.dtype == dtype
        assert relative_error(got_m, wanted_m) <= max(4 * torch.finfo(dtype).eps, 1e-5)


def test_output_side_by_transposed_views():
    torch.manual_seed(0)
    up, old_up = torch.randn(12, 3, dtype=torch.float64), torch.randn(2, 12, 3, dtype=torch.float64)
    value = orthogonality_penalty([up.T], [old_up.transpose(1, 2)])
    assert torch.allclose(value, sum((b.T @ up).square().sum() for b in old_up))


def test_earlier_adapters_get_no_gradient():
    new, old = penalty_inputs((5,), 2, 2, 2)
    old[0].requires_grad_()
    orthogonality_penalty([new[0].requires_grad_()], old).backward()
    assert old[0].grad is None
    assert new[0].grad is not None


def test_orthogonal_adapters_have_no_penalty():
    basis = torch.linalg.qr(torch.randn(16, 16, dtype=torch.float64)).Q
    assert orthogonality_penalty([basis[:4]], [basis[None, 4:12]]) < 1e-25


def test_official_value():
    oracle = load_file(ORACLES / "o3_detector.safetensors")
    wanted = json.loads((ORACLES / "o3_detector.json").read_text())["orthogonality_penalty"]
    value = orthogonality_penalty([oracle["orthogonality.current_A"]], [oracle["orthogonality.previous_A"]])
    assert abs(value.item() - wanted) <= 1e-10 * wanted


def test_gradcheck():
    new, old = penalty_inputs((4, 3), 2, 2, 2)
    leaves = [tensor.requires_grad_() for tensor in new]
    assert torch.autograd.gradcheck(lambda *new: orthogonality_penalty(list(new), old), leaves)


@pytest.mark.parametrize("compute", [penalty_by_group, penalty_on_device])
def test_backward_can_be_asked_again(compute):
    new, old = penalty_inputs((6, 9, 6), 3, 4, 2)
    wanted = value_and_gradient(orthogonality_penalty_reference, new, old)[1]
    leaves = [tensor.clone().requires_grad_() for tensor in new]
    value = Penalty.apply(compute, old, *leaves)
    first = torch.autograd.grad(3 * value, leaves, retain_graph=True)
    second = torch.autograd.grad(6 * value, leaves)
    for first_m, second_m, wanted_m in zip(first, second, wanted, strict=True):
        assert relative_error(first_m, wanted_m) <= 1e-12
        assert relative_error(second_m, 2 * wanted_m) <= 1e-12
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(value, leaves)


def test_second_derivative_is_refused():
    new, old = penalty_inputs((4,), 2, 5, 2)
    new[0].requires_grad_()
    (gradient,) = torch.autograd.grad(orthogonality_penalty(new, old), new, create_graph=True)
    with pytest.raises(RuntimeError, match=r"once_differentiable|does not require grad"):
        gradient.sum().backward()


def test_registered_operator_equals_the_call():
    new, old = penalty_inputs((6, 9, 6), 3, 4, 2)

    def registered(leaves, old):
        return torch.ops.o3_kernels.orthogonality_penalty(leaves, old, True)[0]

    wanted = value_and_gradient(orthogonality_penalty_reference, new, old)
    assert_same(value_and_gradient(registered, new, old), wanted, 1e-12)


def test_operator_is_well_registered():
    new, old = penalty_inputs((4, 6, 4), 2, 3, 2)
    torch.library.opcheck(torch.ops.o3_kernels.orthogonality_penalty, (new, old, False))
    new = [tensor.requires_grad_() for tensor in new]
    torch.library.opcheck(torch.ops.o3_kernels.orthogonality_penalty, (new, old, True))


def test_compiles_without_a_graph_break():
    new, old = penalty_inputs((4, 6), 2, 3, 2)
    new = [tensor.requires_grad_() for tensor in new]

    def loss(*new):
        return orthogonality_penalty([tensor * 2 for tensor in new], old).sqrt()

    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    wanted = torch.autograd.grad(loss(*new), new)
    for got_m, wanted_m in zip(torch.autograd.grad(compiled(*new), new), wanted, strict=True):
        assert relative_error(got_m, wanted_m) <= 1e-12


def test_wrong_input_is_named():
    new, old = penalty_inputs((4, 6), 2, 3, 2)
    with pytest.raises(ValueError, match="2 and 1 came"):
        orthogonality_penalty(new, old[:1])
    with pytest.raises(ValueError, match="0 and 0 came"):
        orthogonality_penalty([], [])
    with pytest.raises(ValueError, match=r"old\[1\]"):
        orthogonality_penalty(new, [old[0], old[0]])
    with pytest.raises(TypeError, match="one dtype"):
        orthogonality_penalty([new[0], new[1].float()], old)
    with pytest.raises(TypeError, match=r"new\[0\]"):
        orthogonality_penalty([new[0].long(), new[1]], old)
    with pytest.raises(ValueError, match="device"):
        orthogonality_penalty(new, [old[0].to("meta"), old[1]])
