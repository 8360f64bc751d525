"""Verifies first, then times: all variants in one process, in turn, on inputs that no cache still holds."""

import logging
import statistics
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from o3_kernels.benchmarks.cases import Case, with_gradient
from o3_kernels.benchmarks.memory import peak_mib

__all__ = ["Roofs", "measure_case", "measure_roofs", "relative_error", "tensors_of", "time_ms"]

logger = logging.getLogger(__name__)
ROUNDS = 50
FEWEST_ROUNDS = 3
CACHE_FACTOR = 2  # the inputs that take turns are together this much larger than the cache
MOST_COPIES = 8
HEAD_START_CYCLES = 10_000_000  # some 5 ms

Roofs = dict[str, float]


def measure_roofs(device: torch.device) -> Roofs:
    """Returns the measured copy bandwidth in GB/s and the float32 and bfloat16 product rates in TFLOP/s."""
    gpu = device.type == "cuda"
    source = torch.zeros((1 << 30) if gpu else (1 << 26), device=device)
    target = torch.empty_like(source)
    seconds = _median_ms(lambda: target.copy_(source), device) / 1e3
    roofs = {"copy_gb_s": 2 * source.numel() * 4 / seconds / 1e9}
    side = 8192 if gpu else 1024
    for dtype in (torch.float32, torch.bfloat16) if gpu else (torch.float32,):
        square = torch.zeros(side, side, device=device, dtype=dtype)
        seconds = _median_ms(lambda square=square: square @ square, device) / 1e3  # type: ignore[misc]
        roofs[f"matmul_{str(dtype).removeprefix('torch.')}_tflop_s"] = 2 * side**3 / seconds / 1e12
    return roofs


def measure_case(case: Case, device: torch.device, seconds: float, compile_too: bool) -> dict[str, Any]:
    """Returns errors, median times, quartiles and peak memory of every variant of a case.

    A variant that is wrong gets its error and no time; nothing is timed where ours is wrong.

    Args:
        case: what to measure.
        device: where.
        seconds: time for the rounds; at least three are run.
        compile_too: also measure torch.compile(mode="max-autotune").
    """
    inputs = case.make(0)
    variants = dict(case.variants)
    if compile_too and case.compiled is not None:
        variants["compiled"] = _compiled(case)
    wanted = tensors_of(case.truth(*inputs))
    errors: dict[str, float] = {}
    for name, run in variants.items():
        if name in case.unverified:
            continue
        pairs = zip(tensors_of(run(*inputs)), wanted, strict=True)
        errors[name] = max(relative_error(got, right) for got, right in pairs)
    del wanted
    right = [name for name in variants if errors.get(name, 0.0) <= case.tolerance]
    if "ours" not in right:
        logger.error(
            "%s %s: ours is wrong by %g, nothing is timed", case.operation, case.name, errors["ours"]
        )
        right = []
    copies = [inputs, *(case.make(seed) for seed in range(1, _copies(case, device)))]
    timed = {name: _ready(variants[name], copies, case.graphed and device.type == "cuda") for name in right}
    times = _interleaved(timed, len(copies), device, seconds)
    times = {name: [value * case.scale.get(name, 1.0) for value in values] for name, values in times.items()}
    return {
        "operation": case.operation,
        "name": case.name,
        "sizes": case.sizes,
        "dtype": case.dtype,
        "bytes": case.bytes,
        "flops": case.flops,
        "relative_error": errors,
        "tolerance": case.tolerance,
        "scaled_by": case.scale,
        "median_ms": {name: statistics.median(values) for name, values in times.items()},
        "quartiles_ms": {name: statistics.quantiles(values, n=4)[::2] for name, values in times.items()},
        "rounds": {name: len(values) for name, values in times.items()},
        "host_ms": {name: _host_ms(timed[name][0], device) for name in right},
        "peak_mib": {name: peak_mib(lambda name=name: variants[name](*inputs), device) for name in right},  # type: ignore[misc]
    }


def _compiled(case: Case) -> Callable[..., Any]:
    """Compiles what the case offers; a penalty is timed with its gradient, as the others are."""
    assert case.compiled is not None
    torch.compiler.reset()  # else a later shape falls back to dynamic sizes, or to no compilation at all
    function: Callable[..., Any] = torch.compile(case.compiled, mode="max-autotune", dynamic=False)
    return with_gradient(function) if case.operation == "orthogonality_penalty" else function


def _interleaved(
    variants: dict[str, list[Callable[[], Any]]], copies: int, device: torch.device, seconds: float
) -> dict[str, list[float]]:
    """Times the variants in turn, each round on other inputs."""
    times: dict[str, list[float]] = {name: [] for name in variants}
    started = time.perf_counter()
    for turn in range(ROUNDS):
        if turn >= FEWEST_ROUNDS and time.perf_counter() - started > seconds:
            break
        for name, runs in variants.items():
            times[name].append(time_ms(runs[turn % copies], device))
    return times


def _ready(run: Callable[..., Any], copies: Sequence[Any], graphed: bool) -> list[Callable[[], Any]]:
    """Returns one call for each copy of the inputs; a graphed one replays what was recorded."""
    if not graphed:
        return [partial(run, *inputs) for inputs in copies]
    replays: list[Callable[[], Any]] = []
    for inputs in copies:
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(FEWEST_ROUNDS):
                run(*inputs)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            run(*inputs)
        replays.append(graph.replay)
    return replays


def time_ms(run: Callable[[], Any], device: torch.device) -> float:
    """Times one call: CUDA events on a GPU, elsewhere the clock, or CPU time where one thread does it all.

    CPU time leaves out when other programs had the core.
    The GPU is kept busy first, so that the host runs ahead as it does in a training step: what is measured is
    the device's work, as long as the host needs less than the head start to hand it over.
    """
    if device.type != "cuda":
        clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
        started = clock()
        run()
        return (clock() - started) * 1e3
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))  # type: ignore[no-untyped-call]
    torch.cuda.synchronize()
    torch.cuda._sleep(HEAD_START_CYCLES)  # type: ignore[no-untyped-call]
    start.record()
    run()
    end.record()
    torch.cuda.synchronize()
    return float(start.elapsed_time(end))


def _host_ms(run: Callable[[], Any], device: torch.device) -> float | None:
    """Returns how long the host is busy with a call; None on a CPU, where that is the call."""
    if device.type != "cuda":
        return None
    torch.cuda.synchronize()
    started = time.perf_counter()
    run()
    return (time.perf_counter() - started) * 1e3


def _median_ms(run: Callable[[], Any], device: torch.device) -> float:
    """Times a call several times, the first not counted."""
    return statistics.median([time_ms(run, device) for _ in range(8)][1:])


def _copies(case: Case, device: torch.device) -> int:
    """Returns how many inputs take turns so that none is still in the cache."""
    if device.type != "cuda":
        return 1
    cache = torch.cuda.get_device_properties(device).L2_cache_size
    return min(max(-(-CACHE_FACTOR * cache // case.bytes), 1), MOST_COPIES)


def tensors_of(result: Any) -> list[Tensor]:
    """Returns a result as a list."""
    return [result] if isinstance(result, Tensor) else list(result)


def relative_error(got: Tensor, wanted: Tensor) -> float:
    """Largest difference over the largest wanted magnitude; fewer rows are compared to the first."""
    wanted = wanted[..., : got.shape[-1]] if got.dim() == 2 and got.shape != wanted.shape else wanted
    difference = (got.detach().double() - wanted).abs().max()
    return float(difference / wanted.abs().max().clamp_min(torch.finfo(torch.float64).tiny))
