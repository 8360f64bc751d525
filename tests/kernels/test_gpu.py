"""The public calls on a CUDA device: every type, gradients, compiling, CUDA graphs, measured block sizes."""

import json
import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from kernel_cases import gated_inputs, in_doubles, penalty_inputs, relative_error, score_inputs

from benchmarks.kernels import cases
from benchmarks.kernels.tune import tune_cases
from o3_kernels import (
    RequestStatistics,
    gated_lora,
    gated_lora_group,
    gated_lora_reference,
    layer_scores,
    layer_scores_reference,
    orthogonality_penalty,
    orthogonality_penalty_reference,
    tuning,
)

KEPT_TABLES = 16  # of addresses, by orthogonality_penalty
pytestmark = pytest.mark.gpu
DEVICE = torch.device("cuda")
# float32 sums of some thousand terms; half types round their inputs' products and their results once
TOLERANCE = {torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1e-2}
dtypes = pytest.mark.parametrize("dtype", TOLERANCE, ids=lambda dtype: str(dtype).removeprefix("torch."))


def moved(tensors):
    return [tensor if tensor is None else tensor.to(DEVICE) for tensor in tensors]


@dtypes
@pytest.mark.parametrize("rows", [1, 8, 65])
def test_layer_scores(dtype, rows):
    inputs = score_inputs(rows, 6, 384, 5, 90, 400, dtype=dtype)
    wanted = layer_scores_reference(*in_doubles(inputs[:1]), RequestStatistics(*in_doubles(inputs[1:])))
    for got, wanted_part in zip(layer_scores(*moved(inputs)), wanted, strict=True):
        assert relative_error(got, wanted_part) <= TOLERANCE[dtype]


@dtypes
@pytest.mark.parametrize("sizes", [(8, 16, 8), (32, 4, 32), (3, 70, 5)], ids=str)
def test_orthogonality_penalty(dtype, sizes):
    new, old = penalty_inputs((4096, 1024, 4096, 11008), *sizes, dtype=dtype)
    leaves = [tensor.double().requires_grad_() for tensor in new]
    value = orthogonality_penalty_reference(leaves, in_doubles(old))
    wanted = torch.autograd.grad(value, leaves)
    new = [tensor.requires_grad_() for tensor in moved(new)]
    first, second = (orthogonality_penalty(new, moved(old)) for _ in range(2))
    assert relative_error(first, value) <= TOLERANCE[dtype]
    assert torch.equal(first, second)
    gradients = torch.autograd.grad(first, new)
    for got, again, wanted_m in zip(gradients, torch.autograd.grad(second, new), wanted, strict=True):
        assert relative_error(got, wanted_m) <= TOLERANCE[dtype]
        assert torch.equal(got, again)


@dtypes
@pytest.mark.parametrize("tokens", [1, 40])
def test_gated_lora(dtype, tokens):
    y, x, a, b, weights = gated_inputs(9, tokens, 1024, 136, (1024, 256, 256), dtype=dtype)
    dead, S = weights.eq(0).all(1), weights.shape[1]
    got = gated_lora_group(moved(y), *moved([x, a]), moved(b), weights.to(DEVICE))
    for j, output in enumerate(got):
        part = in_doubles([y[j], x, a[j * S : (j + 1) * S], b[j], weights])
        assert relative_error(output, gated_lora_reference(*part)) <= TOLERANCE[dtype]
        assert torch.equal(output.cpu()[dead].view(torch.uint8), y[j][dead].view(torch.uint8))


def test_every_gradient_of_gated_lora():
    y, x, a, b, weights = gated_inputs(5, 3, 70, 12, (40,), dtype=torch.float32)
    leaves = [tensor.requires_grad_() for tensor in moved([y[0], x, a, b[0], weights])]
    doubles = [tensor.detach().double().requires_grad_() for tensor in leaves]
    ours = torch.autograd.grad(gated_lora(*leaves).sin().sum(), leaves)
    theirs = torch.autograd.grad(gated_lora_reference(*doubles).sin().sum(), doubles)
    for got, wanted in zip(ours, theirs, strict=True):
        assert relative_error(got, wanted) <= TOLERANCE[torch.float32]


def test_doubles_stay_with_pytorch():
    inputs = score_inputs(3, 2, 20, 2, 5, 6)
    wanted = layer_scores_reference(inputs[0], RequestStatistics(*inputs[1:]))
    assert relative_error(layer_scores(*moved(inputs)).aggregate, wanted[2]) <= 1e-12


def test_compiles_without_a_graph_break():
    inputs = moved(score_inputs(4, 2, 64, 3, 2, 5, dtype=torch.float32))
    new, old = (moved(tensors) for tensors in penalty_inputs((64, 32), 4, 2, 4, dtype=torch.float32))
    (y,), x, a, (b,), weights = gated_inputs(4, 2, 64, 8, (64,), dtype=torch.float32)
    y, x, a, b, weights = moved([y, x, a, b, weights])

    def model(x):
        gated = gated_lora(y, x, a, b, weights).sum()
        return gated + layer_scores(*inputs).aggregate.sum() + orthogonality_penalty(new, old)

    compiled = torch.compile(model, fullgraph=True)
    assert relative_error(compiled(x), model(x)) <= TOLERANCE[torch.float32]


def test_calls_replay_from_a_cuda_graph():
    new, old = (moved(tensors) for tensors in penalty_inputs((256, 128), 4, 3, 4, dtype=torch.float32))
    y, x, a, b, weights = gated_inputs(6, 1, 256, 16, (128, 64), dtype=torch.float32)
    y, (x, a, weights), b = moved(y), moved([x, a, weights]), moved(b)

    def run():
        return [orthogonality_penalty(new, old), *gated_lora_group(y, x, a, b, weights)]

    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        wanted = [tensor.clone() for tensor in run()]
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        got = run()
    for tensor in got:
        tensor.zero_()
    for _ in range(2 * KEPT_TABLES):  # push out what the launch of the graph has kept
        orthogonality_penalty([tensor.clone() for tensor in new], [tensor.clone() for tensor in old])
        filler = torch.full((1 << 16,), -1, device=DEVICE)
    graph.replay()
    del filler
    for got_part, wanted_part in zip(got, wanted, strict=True):
        assert torch.equal(got_part, wanted_part)


def test_measured_block_sizes_are_kept_and_right(monkeypatch, tmp_path):
    shapes = [
        cases.layer_scores_case("small", 8, 4, 6, 384, 400, DEVICE),
        cases.penalty_case("llama-2-7b", 8, 4, DEVICE),
        cases.gated_case("small", 16, 1, 4, 1024, 512, DEVICE),
    ]
    table = tune_cases(shapes, DEVICE, tmp_path)
    assert all(key.split()[0] in cases.OPERATIONS for key in json.loads(table.read_text()))
    monkeypatch.setattr(tuning, "TABLES", tmp_path)
    for case in shapes:
        inputs = case.make(1)
        wanted = case.truth(*inputs)
        got = case.variants["ours"](*inputs)
        if isinstance(wanted, torch.Tensor):
            wanted, got = [wanted], [got]
        for got_part, wanted_part in zip(got, wanted, strict=True):
            assert relative_error(got_part, wanted_part) <= case.tolerance
