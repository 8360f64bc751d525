"""Verifies first, then times: all variants in one process, mixed, on inputs that no cache still holds."""

import logging
import random
import statistics
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.kernels.cases import Case, with_gradient
from benchmarks.kernels.memory import peak_mib

logger = logging.getLogger(__name__)
ROUNDS = 50
FEWEST_ROUNDS = 9
CACHE_FACTOR = 4  # what is read between two timings is this much larger than the cache
TF32_PRODUCTS = 3  # that together carry the bits of one product of float32
HEAD_START_CYCLES = 10_000_000  # some 5 ms

Roofs = dict[str, float]


def measure_roofs(device: torch.device) -> Roofs:
    """Returns the measured copy bandwidth in GB/s and the float32 and bfloat16 product rates in TFLOP/s.

    On a GPU float32 is the faster of plain products and of three TF32 products for each.
    """
    gpu = device.type == "cuda"
    source = torch.zeros((1 << 30) if gpu else (1 << 26), device=device)
    target = torch.empty_like(source)
    seconds = _median_ms(lambda: target.copy_(source), device) / 1e3
    square = torch.randn(8192 if gpu else 1024, 8192 if gpu else 1024, device=device)
    rates = {"float32": _product_rate(square, device)}
    if gpu:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision("high")
        rates["float32"] = max(rates["float32"], _product_rate(square, device) / TF32_PRODUCTS)
        torch.set_float32_matmul_precision(before)
        rates["bfloat16"] = _product_rate(square.bfloat16(), device)
    copy = 2 * source.numel() * source.element_size() / seconds / 1e9
    return {"copy_gb_s": copy} | {f"matmul_{name}_tflop_s": rate for name, rate in rates.items()}


def _product_rate(square: Tensor, device: torch.device) -> float:
    """Returns the TFLOP/s of a product of two square matrices; of zeros a GPU takes more, so use others."""
    return 2 * len(square) ** 3 / _median_ms(lambda: square @ square, device) / 1e9


def measure_case(case: Case, device: torch.device, seconds: float, compile_too: bool) -> dict[str, Any]:
    """Returns errors, median times, quartiles and peak memory of every variant of a case.

    A variant that is wrong gets its error and no time, one that fails neither; nothing is timed where ours is
    wrong.

    Args:
        case: what to measure.
        device: where.
        seconds: time for the rounds; at least three are run.
        compile_too: also measure what torch.compile makes of the case in its max-autotune mode.
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
        try:
            pairs = zip(tensors_of(run(*inputs)), wanted, strict=True)
            errors[name] = max(relative_error(got, right) for got, right in pairs)
        except Exception:
            if name == "ours":
                raise
            logger.exception("%s %s: %s failed, the others are measured", case.operation, case.name, name)
    del wanted
    verified = [name for name, error in errors.items() if error <= case.tolerance]
    right = [name for name in variants if name in verified or name in case.unverified]
    if "ours" not in right:
        logger.error(
            "%s %s: ours is wrong by %g, nothing is timed", case.operation, case.name, errors["ours"]
        )
        right = []
    timed = {name: _ready(variants[name], inputs, case.graphed and device.type == "cuda") for name in right}
    times = _interleaved(timed, device, seconds)
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
        "host_ms": {name: _host_ms(timed[name], device) for name in right},
        "peak_mib": {name: peak_mib(lambda name=name: variants[name](*inputs), device) for name in right},  # type: ignore[misc]
    }


def _compiled(case: Case) -> Callable[..., Any]:
    """Compiles what the case offers; a penalty is timed with its gradient, as the others are.

    Without CUDA graphs, which would copy all inputs at every call: the head start hides launches as well.
    """
    assert case.compiled is not None
    torch.compiler.reset()  # else a later shape falls back to dynamic sizes, or to no compilation at all
    mode = "max-autotune-no-cudagraphs"
    function: Callable[..., Any] = torch.compile(case.compiled, mode=mode, dynamic=False)
    return with_gradient(function) if case.operation == "orthogonality_penalty" else function


def _interleaved(
    variants: dict[str, Callable[[], Any]], device: torch.device, seconds: float
) -> dict[str, list[float]]:
    """Times all variants once a round.

    Each round has another order: what follows a variant finds the memory as that one left it, which moved
    times on a CPU by up to a third.
    """
    clean_cache, shuffled = cache_cleaner(device), random.Random(0)
    times: dict[str, list[float]] = {name: [] for name in variants}
    started = time.perf_counter()
    for turn in range(ROUNDS):
        if turn >= FEWEST_ROUNDS and time.perf_counter() - started > seconds:
            break
        for name in shuffled.sample(list(variants), len(variants)):
            clean_cache()
            times[name].append(time_ms(variants[name], device))
    return times


def cache_cleaner(device: torch.device) -> Callable[[], Any]:
    """Returns a call that fills a GPU's cache with other numbers; it writes none, which would cost later."""
    if device.type != "cuda":
        return lambda: None
    cache = torch.cuda.get_device_properties(device).L2_cache_size
    return torch.ones(CACHE_FACTOR * cache // 4, device=device).sum


def _ready(run: Callable[..., Any], inputs: tuple[Any, ...], graphed: bool) -> Callable[[], Any]:
    """Returns a call on the inputs; a graphed one replays what was recorded."""
    if not graphed:
        return partial(run, *inputs)
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(FEWEST_ROUNDS):
            run(*inputs)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        run(*inputs)
    return graph.replay


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


def tensors_of(result: Any) -> list[Tensor]:
    """Returns a result as a list."""
    return [result] if isinstance(result, Tensor) else list(result)


def relative_error(got: Tensor, wanted: Tensor) -> float:
    """Largest difference over the largest wanted magnitude; fewer rows are compared to the first."""
    wanted = wanted[..., : got.shape[-1]] if got.dim() == 2 and got.shape != wanted.shape else wanted
    difference = (got.detach().double() - wanted).abs().max()
    return float(difference / wanted.abs().max().clamp_min(torch.finfo(torch.float64).tiny))
