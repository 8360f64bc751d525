"""The Triton kernels against float64; run by test_triton.py in a process of its own.

With TRITON_INTERPRET=1 on the CPU, else on the GPU: the variable has to be set before Triton is imported.
"""

import os
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")
sys.path.insert(0, str(Path(__file__).parent))

import triton.language as tl
from kernel_cases import (
    gated_inputs,
    in_doubles,
    penalty_inputs,
    relative_error,
    score_inputs,
)

from benchmarks.kernels import cases, decoder_layer
from benchmarks.kernels.measure import tensors_of
from benchmarks.kernels.tune import CHANGES, TUNABLE, variations
from o3_kernels import (
    RequestStatistics,
    gated_lora_reference,
    layer_scores_reference,
    orthogonality_penalty_reference,
    split_halves,
)
from o3_kernels.ops.gated_lora.launch import launch_gated_lora, plan_gated_lora
from o3_kernels.ops.layer_scores.launch import (
    launch_layer_scores,
    plan_layer_scores,
)
from o3_kernels.ops.orthogonality_penalty.launch import (
    launch_orthogonality_penalty,
    plan_penalty,
)
from o3_kernels.ops.orthogonality_penalty.operator import Penalty

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
pytestmark = [] if INTERPRETED else [pytest.mark.gpu]
DEVICE = "cpu" if INTERPRETED else "cuda"
# float32 sums of some hundred terms; half types round their inputs' products and their results once
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}
DTYPES = [torch.float32, torch.float16, torch.bfloat16]


def teach_bfloat16() -> None:
    """Lets the interpreter round to bfloat16 (it truncates) and multiply it (it multiplies the bits)."""
    import numpy as np
    from triton.runtime import interpreter

    builder, plain_cast = interpreter.InterpreterBuilder, interpreter.InterpreterBuilder.cast_impl
    plain_dot = builder.create_dot

    def single(handle):
        if handle.dtype.scalar != tl.bfloat16:
            return handle
        bits = handle.data.astype(np.uint32) << 16
        return interpreter.TensorHandle(bits.view(np.float32), tl.float32)

    def cast(self, source, target):
        if target.scalar == tl.bfloat16 and source.dtype.scalar == tl.float32:
            rounded = torch.from_numpy(np.ascontiguousarray(source.data)).bfloat16().view(torch.int16)
            return interpreter.TensorHandle(rounded.numpy().view(np.uint16), tl.bfloat16)
        widens = source.dtype.scalar == tl.bfloat16 and target.scalar == tl.float32
        return single(source) if widens else plain_cast(self, source, target)

    def dot(self, a, b, *rest):
        return plain_dot(self, single(a), single(b), *rest)

    builder.create_fp_trunc = builder.create_fp_ext = cast
    builder.create_dot = dot


if INTERPRETED:
    teach_bfloat16()


def grid(shapes, slow=()):
    """Runs a test on each shape in each type; the named shapes are slow, and half types but at odd sizes."""
    cases = []
    for name, shape in shapes.items():
        for dtype in DTYPES:
            is_slow = name in slow or (dtype != torch.float32 and not name.startswith("odd"))
            text = f"{name}-{str(dtype).removeprefix('torch.')}"
            cases.append(pytest.param(shape, dtype, id=text, marks=[pytest.mark.slow] * is_slow))
    return pytest.mark.parametrize(("shape", "dtype"), cases)


@pytest.fixture(autouse=True)
def _empty_tensors_hold_nan(monkeypatch):
    """A result that no program wrote shows up as NaN."""
    for name in ("empty", "empty_like"):
        plain = getattr(torch, name)

        def filled(*args, plain=plain, **kwargs):
            tensor = plain(*args, **kwargs)
            return tensor.fill_(torch.nan) if tensor.is_floating_point() else tensor

        monkeypatch.setattr(torch, name, filled)
    new_empty = torch.Tensor.new_empty

    def new_filled(*args, **kwargs):
        tensor = new_empty(*args, **kwargs)
        return tensor.fill_(torch.nan) if tensor.is_floating_point() else tensor

    monkeypatch.setattr(torch.Tensor, "new_empty", new_filled)


def moved(tensors):
    return [tensor if tensor is None else tensor.to(DEVICE) for tensor in tensors]


def score(launch, inputs, *options, **plan):
    """Calls an implementation of layer_scores with its statistics in one tuple."""
    return launch(inputs[0], RequestStatistics(*inputs[1:], *options), **plan)


SCORE_SHAPES = {
    "ones": (1, 1, 1, 1, 1, 1),
    "odd": (3, 3, 17, 2, 7, 9),
    "above one block": (70, 1, 70, 2, 70, 66),
    "one row, wide": (1, 2, 300, 3, 40, 70),
    "empty batch": (0, 2, 8, 2, 3, 4),
    "no bank": (3, 2, 8, 2, 3, 0),
    "no whitening": (3, 2, 8, 2, 0, 4),
    "many requests": (3, 1, 16, 9, 2, 3),
}


@grid(SCORE_SHAPES, slow=("above one block", "one row, wide", "many requests"))
@pytest.mark.parametrize(
    "options",
    [
        pytest.param((-1, False), id="low rank"),
        pytest.param((-1, True), id="whitened", marks=pytest.mark.slow),
        pytest.param((1, False), id="plain", marks=pytest.mark.slow),
    ],
)
def test_layer_scores_equal_reference(shape, dtype, options):
    check_layer_scores(shape, dtype, options)


@pytest.mark.parametrize("name", ["ones", "odd", "no bank"])
def test_whitened_cosines_equal_reference(name):
    """They differ in the last kernel only, which reads float32 whatever the inputs are."""
    check_layer_scores(SCORE_SHAPES[name], torch.float32, (-1, True))


def check_layer_scores(shape, dtype, options):
    inputs = score_inputs(*shape, dtype=dtype)
    wanted = score(layer_scores_reference, in_doubles(inputs), *options)
    got = score(launch_layer_scores, moved(inputs), *options)
    for got_part, wanted_part in zip(got, wanted, strict=True):
        assert got_part.dtype == (torch.float32 if got_part.dim() == inputs[0].dim() else torch.float64)
        assert relative_error(got_part, wanted_part) <= TOLERANCE[dtype]


@pytest.mark.parametrize("means", [True, False])
def test_layer_scores_of_halves_equal_reference(means):
    inputs = score_inputs(3, 2, 40, 1, 7, 9, dtype=torch.float32)
    inputs[1] = inputs[1] if means else None
    wanted = score(layer_scores_reference, in_doubles(inputs))
    inputs[3], inputs[4] = split_halves(inputs[3]), split_halves(inputs[4])
    for got_part, wanted_part in zip(score(launch_layer_scores, moved(inputs)), wanted, strict=True):
        assert relative_error(got_part, wanted_part) <= TOLERANCE[torch.float32]


@pytest.mark.parametrize(
    "dtype", [torch.bfloat16, *(pytest.param(t, marks=pytest.mark.slow) for t in DTYPES[:2])], ids=str
)
def test_rows_of_a_batch_score_as_alone(dtype):
    """One rounding rule for any number of rows: not a bit depends on the batch."""
    inputs = score_inputs(3, 1, 20, 1, 5, 6, dtype=dtype)
    together = score(launch_layer_scores, moved(inputs))
    for row in range(3):
        alone = score(launch_layer_scores, moved([inputs[0][row : row + 1], *inputs[1:]]))
        for got, wanted in zip(alone, together, strict=True):
            assert torch.equal(got[:, 0], wanted[:, row])


@pytest.mark.parametrize("centred", [False, True])
def test_layer_scores_without_mask_and_not_contiguous(centred):
    inputs = score_inputs(2, 3, 20, 2, 5, 6, dtype=torch.float32)
    inputs[1] = None if centred else inputs[1]
    inputs[0] = inputs[0].transpose(0, 1).contiguous().transpose(0, 1)
    inputs[3] = inputs[3].transpose(0, 1).contiguous().transpose(0, 1)
    inputs[4] = inputs[4].flip(2)[:, :, ::2]
    inputs[5] = None
    wanted = score(layer_scores_reference, in_doubles(inputs))
    for got_part, wanted_part in zip(score(launch_layer_scores, moved(inputs)), wanted, strict=True):
        assert relative_error(got_part, wanted_part) <= TOLERANCE[torch.float32]


def test_layer_scores_mask_out_a_whole_request():
    inputs = score_inputs(2, 1, 8, 2, 3, 4, dtype=torch.float32)
    inputs[5][1] = False
    _, cosine, _ = score(launch_layer_scores, moved(inputs))
    assert (cosine[1] == -1).all()
    assert (cosine[0] > -1).all()


def test_layer_scores_do_not_depend_on_block_sizes():
    inputs = score_inputs(17, 1, 40, 1, 17, 17, dtype=torch.float32)
    plan = plan_layer_scores(17, 17, 40, 1)._replace(block_b=16, block_n=16, block_d=16)
    wanted = score(layer_scores_reference, in_doubles(inputs))
    for got, wanted_part in zip(score(launch_layer_scores, moved(inputs), plan=plan), wanted, strict=True):
        assert relative_error(got, wanted_part) <= TOLERANCE[torch.float32]


PENALTY_SHAPES = {
    "ones": ((1,), 1, 1, 1),
    "sums of one product": ((1,), 4, 4, 1),
    "odd, three widths": ((5, 17, 5, 7), 3, 2, 5),
    "above one block": ((130, 70), 17, 5, 9),
    "no history": ((6, 4), 2, 0, 3),
    "many requests": ((20,), 2, 20, 2),
}


@grid(PENALTY_SHAPES)
def test_penalty_and_gradient_equal_reference(shape, dtype):
    new, old = penalty_inputs(*shape, dtype=dtype)
    leaves = [tensor.double().requires_grad_() for tensor in new]
    wanted = orthogonality_penalty_reference(leaves, in_doubles(old))
    gradients = torch.autograd.grad(wanted, leaves) if wanted.requires_grad else map(torch.zeros_like, leaves)
    got, gradient = launch_orthogonality_penalty(moved(new), moved(old), True)
    assert relative_error(got, wanted) <= TOLERANCE[dtype]
    assert gradient.dtype == torch.float32
    assert relative_error(gradient, torch.cat([g.flatten() for g in gradients])) <= TOLERANCE[dtype]


@pytest.mark.parametrize("transposed", [False, True])
def test_penalty_of_halves_equals_reference(transposed):
    new, old = penalty_inputs((20, 33, 20), 3, 4, 5, dtype=torch.float32)
    leaves = [tensor.double().requires_grad_() for tensor in new]
    wanted = orthogonality_penalty_reference(leaves, in_doubles(old))
    gradients = torch.autograd.grad(wanted, leaves)
    block = split_halves(torch.stack([old[0], old[2]]))  # as stack_history stores modules of one shape
    old = [block[:, 0], split_halves(old[1]), block[:, 1]]
    new = [tensor.T.contiguous().T for tensor in new] if transposed else new
    got, gradient = launch_orthogonality_penalty(moved(new), moved(old), True)
    assert relative_error(got, wanted) <= TOLERANCE[torch.float32]
    layout = torch.cat([(part.T if transposed else part).flatten() for part in gradients])
    assert relative_error(gradient, layout) <= TOLERANCE[torch.float32]


def test_gradient_of_float16_may_exceed_its_range_until_it_is_scaled():
    leaf, old = moved([torch.full((1, 64), 60.0).half(), torch.full((1, 1, 64), 60.0).half()])

    def compute(new, old, need_gradient):
        value, gradient = launch_orthogonality_penalty(new, old, need_gradient)
        return value, [([0], gradient)]

    (1e-8 * Penalty.apply(compute, [old], leaf.requires_grad_())).backward()
    assert relative_error(leaf.grad, torch.full((1, 64), 2e-8 * 64 * 60.0**3)) <= TOLERANCE[torch.float16]


def test_penalty_takes_mixed_ranks_transposed_and_half_history():
    new, old = penalty_inputs((20, 33), 4, 3, 4, dtype=torch.float32)
    new[1] = new[1][:2]
    new[0] = new[0].T.contiguous().T
    old = [tensor.half() for tensor in old]
    wanted = orthogonality_penalty_reference(in_doubles(new), in_doubles(old))
    got, none = launch_orthogonality_penalty(moved(new), moved(old), False)
    assert relative_error(got, wanted) <= TOLERANCE[torch.float16]
    assert none.numel() == 0


@pytest.mark.parametrize("lag", [5000, *(pytest.param(lag, marks=pytest.mark.slow) for lag in (0, 1 << 30))])
def test_penalty_does_not_depend_on_block_sizes(lag):
    new, old = penalty_inputs((40, 50), 3, 10, 4, dtype=torch.float32)
    plan = plan_penalty(3, 40, 50, 1)._replace(
        block_n=16, block_d=16, part_d=32, gradient_n=16, gradient_d=32, lag_bytes=lag
    )
    leaves = [tensor.double().requires_grad_() for tensor in new]
    wanted = orthogonality_penalty_reference(leaves, in_doubles(old))
    gradients = torch.autograd.grad(wanted, leaves)
    got, gradient = launch_orthogonality_penalty(moved(new), moved(old), True, plan=plan)
    assert relative_error(got, wanted) <= TOLERANCE[torch.float32]
    assert relative_error(gradient, torch.cat([g.flatten() for g in gradients])) <= TOLERANCE[torch.float32]


@pytest.mark.parametrize("transposed", [False, True])
def test_penalty_cut_into_chunks_equals_reference(transposed):
    new, old = penalty_inputs((20, 33), 3, 9, 5, dtype=torch.float32)
    leaves = [tensor.double().requires_grad_() for tensor in new]
    wanted = orthogonality_penalty_reference(leaves, in_doubles(old))
    gradients = torch.autograd.grad(wanted, leaves)
    plan = plan_penalty(3, 45, 33, 0)._replace(
        block_n=16, part_d=32, block_d=16, gradient_n=16, gradient_d=32, chunk_bytes=16 * 33 * 4
    )
    new = [tensor.T.contiguous().T for tensor in new] if transposed else new
    old = [split_halves(tensor) for tensor in old]
    got, gradient = launch_orthogonality_penalty(moved(new), moved(old), True, plan=plan)
    assert relative_error(got, wanted) <= TOLERANCE[torch.float32]
    layout = torch.cat([(part.T if transposed else part).flatten() for part in gradients])
    assert relative_error(gradient, layout) <= TOLERANCE[torch.float32]


GATED_SHAPES = {
    "ones": (2, 1, 1, 1, (1,)),
    "odd": (5, 3, 17, 5, (7,)),
    "above one block": (3, 40, 70, 70, (66,)),
    "decode, three layers": (20, 1, 140, 24, (65, 130, 7)),
    "five layers": (4, 3, 9, 3, (5, 6, 7, 8, 9)),
    "empty batch": (0, 2, 8, 4, (6,)),
    "no tokens": (2, 0, 8, 4, (6,)),
    "no request": (3, 2, 8, 0, (6,)),
}


@grid(GATED_SHAPES, slow=("decode, three layers",))
def test_gated_lora_equals_reference_and_leaves_dead_rows(shape, dtype):
    y, x, a, b, weights = gated_inputs(*shape, dtype=dtype)
    S, dead = weights.shape[1], weights.eq(0).all(1)
    got = moved([tensor.clone() for tensor in y])
    launch_gated_lora(got, *moved([x, a]), moved(b), weights.to(DEVICE))
    for j, (before, after) in enumerate(zip(y, got, strict=True)):
        rows = slice(j * S, (j + 1) * S)
        wanted = gated_lora_reference(*in_doubles([before, x, a[rows], b[j], weights]))
        assert relative_error(after, wanted) <= TOLERANCE[dtype]
        bits = torch.int32 if dtype == torch.float32 else torch.int16
        assert torch.equal(after.cpu()[dead].view(bits), before[dead].view(bits))


def test_gated_lora_writes_new_results_and_leaves_the_outputs():
    y, x, a, b, weights = gated_inputs(5, 3, 17, 5, (7, 6), dtype=torch.float32)
    results = [torch.empty_like(tensor, device=DEVICE) for tensor in y]
    outputs = moved([tensor.clone() for tensor in y])
    launch_gated_lora(outputs, *moved([x, a]), moved(b), weights.to(DEVICE), results=results)
    dead = weights.eq(0).all(1)
    for j, (before, output, result) in enumerate(zip(y, outputs, results, strict=True)):
        assert torch.equal(output.cpu(), before)
        wanted = gated_lora_reference(*in_doubles([before, x, a[j * 5 : j * 5 + 5], b[j], weights]))
        assert relative_error(result, wanted) <= TOLERANCE[torch.float32]
        assert torch.equal(result.cpu()[dead].view(torch.int32), before[dead].view(torch.int32))


def test_gated_lora_never_reads_dead_rows_and_requests():
    y, x, a, b, weights = gated_inputs(3, 2, 8, 4, (6,), dtype=torch.float32)
    weights[:, 2] = 0
    wanted = gated_lora_reference(y[0], x, a, b[0], weights)
    x[1], a[2], b[0][:, 3] = torch.nan, torch.nan, b[0][:, 3]
    y[0][1] = 1.5
    wanted[1] = 1.5
    got = moved([y[0].clone()])
    launch_gated_lora(got, *moved([x, a]), moved(b), weights.to(DEVICE))
    assert relative_error(got[0], wanted) <= TOLERANCE[torch.float32]


def test_gated_lora_writes_into_a_view_and_takes_any_plan():
    y, x, a, b, weights = gated_inputs(17, 1, 100, 17, (24,), dtype=torch.float32)
    wide = torch.zeros(17, 1, 90)
    wide[..., 10:34] = y[0]
    wide = wide.to(DEVICE)
    plan = plan_gated_lora(17, 17, 1, 100, 4, 8)._replace(parts=4, shrink_s=16, expand_s=16, expand_o=16)
    plan = plan._replace(block_n=16, shrink_d=32)
    launch_gated_lora([wide[..., 10:34]], *moved([x, a]), moved(b), weights.to(DEVICE), plan=plan)
    wanted = gated_lora_reference(*in_doubles([y[0], x, a, b[0], weights]))
    assert relative_error(wide[..., 10:34], wanted) <= TOLERANCE[torch.float32]
    assert not wide[..., :10].any()
    assert not wide[..., 34:].any()


@pytest.mark.slow
def test_every_plan_worth_timing_is_right():
    inputs = score_inputs(18, 1, 40, 1, 20, 20, dtype=torch.float32)
    wanted = score(layer_scores_reference, in_doubles(inputs))[2]
    for plan in variations(plan_layer_scores(18, 20, 40, 1), CHANGES["layer_scores"]):
        got = score(launch_layer_scores, moved(inputs), plan=plan)[2]
        assert relative_error(got, wanted) <= TOLERANCE[torch.float32], plan
    new, old = penalty_inputs((130,), 3, 2, 9, dtype=torch.float32)
    value = orthogonality_penalty_reference(in_doubles(new), in_doubles(old))
    for plan in variations(plan_penalty(3, 18, 130, 1), CHANGES["orthogonality_penalty"]):
        got, gradient = launch_orthogonality_penalty(moved(new), moved(old), True, plan=plan)
        assert relative_error(got, value) <= TOLERANCE[torch.float32], plan
        assert torch.isfinite(gradient).all()
    y, x, a, b, weights = gated_inputs(18, 1, 70, 20, (40,), dtype=torch.float32)
    wanted = gated_lora_reference(*in_doubles([y[0], x, a, b[0], weights]))
    for plan in variations(plan_gated_lora(18, 20, 1, 70, 4, 8), CHANGES["gated_lora"]):
        (got,) = moved([y[0].clone()])
        launch_gated_lora([got], *moved([x, a]), moved(b), weights.to(DEVICE), plan=plan)
        assert relative_error(got, wanted) <= TOLERANCE[torch.float32], plan


@pytest.mark.slow
def test_tuner_runs_what_the_benchmark_measures(monkeypatch):
    monkeypatch.setitem(cases.LLAMA_WIDTHS, "llama-2-7b", (40, 24))
    monkeypatch.setattr(cases, "LLAMA_LAYERS", 2)
    monkeypatch.setattr(decoder_layer, "INPUT_WIDTHS", (16, 16, 16, 24))
    monkeypatch.setattr(decoder_layer, "OUTPUT_WIDTHS", ((16, 8, 8), (16,), (24, 24), (16,)))
    device = torch.device(DEVICE)
    for case in (
        cases.layer_scores_case("tiny", 5, 2, 2, 36, 20, device),
        cases.penalty_case("llama-2-7b", 2, 3, device),
        cases.gated_case("tiny", 3, 2, 2, 40, 24, device),
        *([] if INTERPRETED else [decoder_layer.decoder_layer_case(4, 2, 2, device)]),  # in bfloat16
    ):
        for tunable in TUNABLE[case.operation](case, case.make(0)):
            results = tunable.run(tunable.plans[0]), tunable.truth()
            assert len(tunable.plans) > 1
            for got, wanted in zip(*map(tensors_of, results), strict=True):
                assert relative_error(got, wanted) <= case.tolerance
