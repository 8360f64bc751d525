"""What only a busy CUDA device shows: races of the penalty, streams, other devices, capture of new addresses.

For a first run on new hardware; `compute-sanitizer` takes the smallest case:
`compute-sanitizer --tool racecheck python -m pytest -m gpu -k sanitizer tests/kernels/test_gpu_stress.py`.
"""

import sys
import time
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
from kernel_cases import gated_inputs, in_doubles, penalty_inputs, relative_error, score_inputs

from o3_kernels import (
    gated_lora_group,
    layer_scores,
    orthogonality_penalty,
    orthogonality_penalty_reference,
    split_halves,
    stack_history,
)

pytestmark = pytest.mark.gpu
DEVICE = torch.device("cuda")
CALLS = 300
FLOAT32 = 1e-5  # relative, sums of some thousand terms of 16 significant bits


def moved(tensors, device=DEVICE):
    return [tensor if tensor is None else tensor.to(device) for tensor in tensors]


def with_gradients(new, old):
    value = orthogonality_penalty(new, old)
    return [value.detach(), *torch.autograd.grad(value, new)]


def penalty_case(widths=(4096, 1024, 4096, 11008) * 8, R=8, P=16, device=DEVICE):
    new, old = penalty_inputs(widths, R, P, R, dtype=torch.float32)
    return [tensor.requires_grad_() for tensor in moved(new, device)], stack_history(moved(old, device))


def test_penalty_repeats_its_bits_while_copies_compete_for_memory():
    new, old = penalty_case()
    wanted = with_gradients(new, old)
    source, target = (torch.empty(1 << 28, device=DEVICE) for _ in range(2))
    other = torch.cuda.Stream()
    for _ in range(CALLS):
        with torch.cuda.stream(other):
            target.copy_(source, non_blocking=True)
        for got, first in zip(with_gradients(new, old), wanted, strict=True):
            assert torch.equal(got, first)


def test_penalty_on_another_stream():
    new, old = penalty_case()
    wanted = with_gradients(new, old)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        results = [with_gradients(new, old) for _ in range(20)]
    torch.cuda.current_stream().wait_stream(stream)
    for result in results:
        for got, first in zip(result, wanted, strict=True):
            assert torch.equal(got, first)


def test_two_penalties_at_a_time_finish_although_neither_has_the_device_to_itself():
    new, old = penalty_case()
    wanted = with_gradients(new, old)
    streams = [torch.cuda.Stream() for _ in range(2)]
    torch.cuda.synchronize()
    results = []
    for call in range(40):
        with torch.cuda.stream(streams[call % 2]):
            results.append(with_gradients(new, old))
    torch.cuda.synchronize()
    for result in results:
        for got, first in zip(result, wanted, strict=True):
            assert torch.equal(got, first)


@pytest.mark.parametrize("side", ["input", "output"])
def test_penalty_recorded_with_addresses_that_no_call_has_seen(side):
    new, old = penalty_case((512, 256, 512))
    if side == "output":
        new = [tensor.detach().T.contiguous().T.requires_grad_() for tensor in new]
    wanted = with_gradients(new, old)
    assert all(got.stride() == tensor.stride() for got, tensor in zip(wanted[1:], new, strict=True))
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        with_gradients(new, old)
    torch.cuda.current_stream().wait_stream(stream)
    fresh = [torch.empty_strided(t.shape, t.stride(), device=DEVICE).copy_(t).requires_grad_() for t in new]
    history = [tensor.clone() for tensor in old]
    with torch.cuda.graph(graph):
        got = with_gradients(fresh, history)
    for tensor in got:
        tensor.zero_()
    for _ in range(3):
        orthogonality_penalty([tensor.detach().clone() for tensor in new], [t.clone() for t in old])
        graph.replay()
        for got_part, wanted_part in zip(got, wanted, strict=True):
            assert torch.equal(got_part, wanted_part)


@pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA devices")
def test_tensors_of_a_device_that_is_not_current():
    second = torch.device("cuda:1")
    assert torch.cuda.current_device() == 0
    new, old = penalty_case((256, 128), device=second)
    here = with_gradients(*penalty_case((256, 128)))
    for got, wanted in zip(with_gradients(new, old), here, strict=True):
        assert torch.equal(got.cpu(), wanted.cpu())
    scores = score_inputs(5, 2, 64, 3, 8, 9, dtype=torch.float32)
    assert torch.equal(layer_scores(*moved(scores, second))[2].cpu(), layer_scores(*moved(scores))[2].cpu())
    y, x, a, b, weights = gated_inputs(4, 2, 64, 8, (32, 16), dtype=torch.float32)
    on = [
        gated_lora_group(moved(y, d), *moved([x, a], d), moved(b, d), weights.to(d)) for d in (second, DEVICE)
    ]
    for got, wanted in zip(*on, strict=True):
        assert torch.equal(got.cpu(), wanted.cpu())


@pytest.mark.parametrize("rank", [8, 64, 128, 256])
def test_penalty_of_every_rank(rank):
    new, old = penalty_inputs((512, 1024), rank, 2, rank, dtype=torch.float32)
    leaves = [tensor.double().requires_grad_() for tensor in new]
    value = orthogonality_penalty_reference(leaves, in_doubles(old))
    wanted = [value.detach(), *torch.autograd.grad(value, leaves)]
    got = with_gradients([t.requires_grad_() for t in moved(new)], stack_history(moved(old)))
    for got_part, wanted_part in zip(got, wanted, strict=True):
        assert relative_error(got_part, wanted_part) <= FLOAT32


def test_penalty_after_the_newer_setting_of_tf32():
    before = torch.backends.cuda.matmul.fp32_precision
    torch.backends.cuda.matmul.fp32_precision = "tf32"
    try:
        y, x, a, b, weights = gated_inputs(4, 2, 64, 8, (32,), dtype=torch.float32)
        gated_lora_group(moved(y), *moved([x, a]), moved(b), weights.to(DEVICE))
        with_gradients(*penalty_case((256, 128)))
    finally:
        torch.backends.cuda.matmul.fp32_precision = before


def test_small_cases_for_the_sanitizer():
    with_gradients(*penalty_case((96, 64), R=4, P=3))
    scores = score_inputs(3, 2, 40, 2, 5, 6, dtype=torch.float32)
    scores[3], scores[4] = split_halves(scores[3]), split_halves(scores[4])
    layer_scores(*moved(scores))
    y, x, a, b, weights = gated_inputs(4, 2, 64, 8, (32, 16), dtype=torch.float32)
    gated_lora_group(moved(y), *moved([x, a]), moved(b), weights.to(DEVICE))
    torch.cuda.synchronize()


def test_read_bandwidth_of_the_cache_is_above_that_of_memory(record_property):
    """The penalty's second pass lives on it: `--junitxml` shows both numbers."""
    rates = {}
    for name, mebibytes in (("cache", 16), ("memory", 1024)):
        numbers = torch.ones(mebibytes << 18, device=DEVICE)
        numbers.sum()
        torch.cuda.synchronize()
        started = time.perf_counter()
        for _ in range(50):
            numbers.sum()
        torch.cuda.synchronize()
        rates[name] = 50 * numbers.nbytes / (time.perf_counter() - started) / 1e9
        record_property(f"{name}_gb_s", rates[name])
    assert rates["cache"] > rates["memory"]
