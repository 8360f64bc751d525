"""Finds the fastest of a short list of block sizes for each shape of the benchmark, on the GPU at hand."""

import json
import logging
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import linear

from benchmarks.kernels.cases import Case
from benchmarks.kernels.measure import cache_cleaner, relative_error, tensors_of, time_ms
from o3_kernels import RequestStatistics
from o3_kernels.blocks import SMALLEST_BLOCK, processors
from o3_kernels.halves import are_halves
from o3_kernels.ops.gated_lora.reference import gated_lora_reference
from o3_kernels.ops.orthogonality_penalty.vectorised import HISTORY_AXES
from o3_kernels.tuning import device_file_name, shape_key

logger = logging.getLogger(__name__)
ROUNDS = 20
LEAST_GAIN = 0.98  # of the rule's time: closer than that is noise, and the rule stays
# changes to the rule's plan that are timed: a float is a factor of the field, an int its value
CHANGES: dict[str, tuple[Mapping[str, int | float], ...]] = {
    "layer_scores": (
        {"block_n": 2.0},
        {"block_n": 0.5},
        {"block_n": 0.25},
        {"block_d": 2.0},
        {"block_d": 0.5},
        {"block_n": 0.5, "block_d": 2.0},
        {"stages": 2},
        {"stages": 3},
        {"stages": 4},
        {"warps": 8},
        {"warps": 2},
        {"block_b": 2.0, "warps": 8},
    ),
    "orthogonality_penalty": (
        {"block_n": 0.5},
        {"block_n": 0.5, "part_d": 2.0},
        {"block_n": 0.5, "block_d": 2.0},
        {"part_d": 2.0},
        {"part_d": 0.5},
        {"part_d": 4.0},
        {"block_d": 0.5},
        {"gradient_d": 2.0},
        {"gradient_d": 0.5},
        {"lag_bytes": 2.0},
        {"lag_bytes": 0.5},
        {"lag_bytes": 0.25},
        {"chunk_bytes": 0},
        {"chunk_bytes": 1 << 23},
        {"stages": 2},
        {"stages": 4},
        {"programs": 1},
        {"programs": 2},
        {"programs": 4},
        {"programs": 1 << 10},
        {"warps": 8},
        {"warps": 8, "gradient_d": 2.0},
    ),
    "gated_lora": (
        {"shrink_s": 2.0},
        {"shrink_d": 2.0},
        {"shrink_d": 0.5},
        {"parts": 1},
        {"parts": 2},
        {"parts": 4},
        {"parts": 8},
        {"expand_o": 2.0},
        {"expand_o": 0.5},
        {"expand_s": 2.0},
        {"stages": 2},
        {"stages": 4},
        {"warps": 2},
        {"warps": 8},
    ),
}


class WrongResultError(RuntimeError):
    """A kernel does not compute what its reference does: there is nothing to time."""


class Tunable(NamedTuple):
    """One shape of an operation as the tuner sees it.

    Args:
        sizes: what an entry of the table is kept by.
        plans: the rule's, then its changed forms.
        run: computes the operation under a plan.
        truth: computes the same in float64.
    """

    sizes: tuple[int, ...]
    plans: Sequence[Any]
    run: Callable[[Any], Any]
    truth: Callable[[], Any]


def tune_cases(
    cases: Iterable[Case],
    device: torch.device,
    folder: Path,
    again: bool = True,
    late: Callable[[], bool] = lambda: False,
) -> Path:
    """Measures the cases, the largest first, and writes an entry for each as soon as it is known.

    The first case of an entry decides it. An entry is empty where nothing beats the rule or no plan is right.

    Args:
        cases: shapes to measure; those without a tunable launch are passed over.
        device: a GPU.
        folder: of the table.
        again: measure entries that the table holds already, too.
        late: tells that it is time to stop; what is missing is measured by the next call.

    Returns:
        The table's file.
    """
    path = folder / f"{device_file_name(torch.cuda.get_device_name(device))}.json"
    table: dict[str, dict[str, int]] = json.loads(path.read_text()) if path.exists() else {}
    known = set() if again else set(table)
    for case in sorted(cases, key=lambda case: -case.bytes):
        for tunable in TUNABLE[case.operation](case, case.make(0)):
            key = shape_key(case.operation, tunable.sizes)
            if late() or key in known:
                continue
            known.add(key)
            try:
                best = tune_case(tunable, case.tolerance, device)
            except Exception:  # the rule stays; the other shapes are tuned
                logger.exception("%s: no plan is right", key)
                best = tunable.plans[0]
            table[key] = {} if best == tunable.plans[0] else best._asdict()
            folder.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n")
            logger.info("%s: %s", key, best)
    return path


def tune_case(tunable: Tunable, tolerance: float, device: torch.device, rounds: int = ROUNDS) -> Any:
    """Returns the fastest right plan; the rule's where none is clearly faster.

    Args:
        tunable: what to run.
        tolerance: largest error over the largest magnitude of the truth.
        device: where.
        rounds: how often each plan is timed, in turn, none finding its inputs in the cache.

    Raises:
        WrongResultError: no plan gives a right result.
    """
    wanted, clean_cache = tensors_of(tunable.truth()), cache_cleaner(device)
    errors = {plan: _error(tunable, plan, wanted) for plan in tunable.plans}
    del wanted
    times: dict[Any, list[float]] = {plan: [] for plan, error in errors.items() if error <= tolerance}
    if not times:
        raise WrongResultError(f"sizes {tunable.sizes}: wrong under every plan, by {min(errors.values()):g}")
    for _ in range(rounds):
        for plan, values in times.items():
            clean_cache()
            values.append(time_ms(lambda plan=plan: tunable.run(plan), device))  # type: ignore[misc]
    medians = {plan: statistics.median(values) for plan, values in times.items()}
    rule, best = tunable.plans[0], min(medians, key=medians.__getitem__)
    return best if rule not in medians or medians[best] < LEAST_GAIN * medians[rule] else rule


def _error(tunable: Tunable, plan: Any, wanted: Sequence[Tensor]) -> float:
    """Returns the error of a plan; infinite where the device has no room for it."""
    from triton.runtime.errors import OutOfResources

    try:
        got = tensors_of(tunable.run(plan))
    except OutOfResources:
        return float("inf")
    return max(relative_error(*pair) for pair in zip(got, wanted, strict=True))


def variations(plan: Any, changes: Sequence[Mapping[str, int | float]]) -> list[Any]:
    """Returns the plan and its changed forms, each once; a factor stops at the smallest block."""
    plans = [plan]
    for change in changes:
        values = {
            name: max(int(getattr(plan, name) * value), SMALLEST_BLOCK) if isinstance(value, float) else value
            for name, value in change.items()
        }
        plans.append(plan._replace(**values))
    return list(dict.fromkeys(plans))


def _layer_scores(case: Case, inputs: Sequence[Any]) -> list[Tunable]:
    from o3_kernels.ops.layer_scores import launch

    plain = inputs[1] is not None  # the paper's detector has means and whole precisions, the default neither
    statistics_ = RequestStatistics(*inputs[1:8], 1 if plain else -1, not plain)
    if inputs[9:]:
        statistics_ = statistics_._replace(whitening=inputs[9], bank=inputs[10])
    bank = statistics_.bank
    (B, L, D), K = inputs[0].shape, len(statistics_.precision_scale)
    sizes = (B, max(statistics_.whitening.shape[-2], bank.shape[-2]), D, int(bank.dtype != torch.bfloat16))
    plans = variations(launch.plan_layer_scores(*sizes), CHANGES["layer_scores"])

    def run(plan: Any) -> Tensor:
        return launch.launch_layer_scores(inputs[0], statistics_, plan)[2]

    return [Tunable((*sizes, K, L), plans, run, lambda: case.truth(*inputs))]


def _orthogonality_penalty(case: Case, inputs: Sequence[Any]) -> list[Tunable]:
    from o3_kernels.ops.orthogonality_penalty import launch

    new, old = [tensor.detach() for tensor in inputs[0]], inputs[3]
    rows = max(tensor.shape[-3] * tensor.shape[-2] for tensor in old)
    width, half = max(tensor.shape[1] for tensor in new), old[0].dtype == torch.bfloat16
    element_bytes = 4 if are_halves(old[0], HISTORY_AXES) else old[0].element_size()
    sizes = (new[0].shape[0], rows, width, int(not half), element_bytes)
    plans = variations(launch.plan_penalty(*sizes), CHANGES["orthogonality_penalty"])

    def run(plan: Any) -> list[Tensor]:
        value, gradient = launch.launch_orthogonality_penalty(new, old, True, plan)
        pieces = torch.split(gradient, [tensor.numel() for tensor in new])
        return [value, *(piece.view_as(tensor) for piece, tensor in zip(pieces, new, strict=True))]

    return [Tunable(sizes, plans, run, lambda: case.truth(*inputs))]


def _gated_lora(case: Case, inputs: Sequence[Any]) -> list[Tunable]:
    """One launch of one layer, or those of every group of layers that share their input."""
    if not case.graphed:
        y, x, a, b, weights = inputs[:5]
        return [_gated_group([y], x, a, [b], weights)]
    groups, weights = inputs
    return [_gated_group([linear(x, w) for w in base], x, a, b, weights) for x, base, a, b in groups]


def _gated_group(y: list[Tensor], x: Tensor, a: Tensor, b: list[Tensor], weights: Tensor) -> Tunable:
    from o3_kernels.ops.gated_lora import launch

    sizes = (x.shape[0] * x.shape[1], weights.shape[1], len(b), x.shape[2], x.element_size(), processors(x))
    plans = variations(launch.plan_gated_lora(*sizes), CHANGES["gated_lora"])

    def run(plan: Any) -> list[Tensor]:
        outputs = [output.clone() for output in y]
        launch.launch_gated_lora(outputs, x, a, b, weights, plan)
        return outputs

    def truth() -> list[Tensor]:
        parts = zip(y, a.chunk(len(b)), b, strict=True)
        return [
            gated_lora_reference(*(tensor.double() for tensor in (y_j, x, a_j, b_j, weights)))
            for y_j, a_j, b_j in parts
        ]

    return Tunable(sizes, plans, run, truth)


TUNABLE: dict[str, Callable[[Case, Sequence[Any]], list[Tunable]]] = {
    "layer_scores": _layer_scores,
    "orthogonality_penalty": _orthogonality_penalty,
    "gated_lora": _gated_lora,
}
