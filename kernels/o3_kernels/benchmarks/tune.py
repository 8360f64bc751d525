"""Finds the fastest of a short list of block sizes for each shape of the benchmark, on the GPU at hand."""

import json
import logging
import statistics
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from o3_kernels import RequestStatistics
from o3_kernels.benchmarks.cases import Case
from o3_kernels.benchmarks.measure import relative_error, tensors_of, time_ms
from o3_kernels.blocks import processors
from o3_kernels.tuning import TABLES, device_file_name, shape_key, variations

__all__ = ["TUNABLE", "Tunable", "tune_case", "tune_cases"]

logger = logging.getLogger(__name__)
ROUNDS = 20
LEAST_GAIN = 0.98  # of the rule's time: closer than that is noise, and the rule stays


class Tunable(NamedTuple):
    """One shape of an operation as the tuner sees it.

    Args:
        sizes: what the plan depends on.
        plans: the rule's, then its changed forms.
        run: computes the operation under a plan.
    """

    sizes: tuple[int, ...]
    plans: Sequence[Any]
    run: Callable[[Any], Any]


def tune_cases(cases: Iterable[Case], device: torch.device, folder: Path = TABLES) -> Path:
    """Measures the cases and writes what beats the rule; entries of other shapes stay.

    Args:
        cases: shapes to measure; those without a tunable launch are passed over.
        device: a GPU.
        folder: of the table.

    Returns:
        The table's file.
    """
    path = folder / f"{device_file_name(torch.cuda.get_device_name(device))}.json"
    table: dict[str, dict[str, int]] = json.loads(path.read_text()) if path.exists() else {}
    for case in cases:
        if case.operation not in TUNABLE or case.graphed:
            continue
        inputs = case.make(0)
        tunable = TUNABLE[case.operation](inputs)
        best = tune_case(tunable, tensors_of(case.truth(*inputs)), case.tolerance, device)
        key = shape_key(case.operation, tunable.sizes)
        table.pop(key, None)
        if best != tunable.plans[0]:
            table[key] = best._asdict()
        logger.info("%s: %s", key, best)
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(table, indent=1, sort_keys=True) + "\n")
    return path


def tune_case(
    tunable: Tunable, wanted: Sequence[Tensor], tolerance: float, device: torch.device, rounds: int = ROUNDS
) -> Any:
    """Returns the fastest right plan; the rule's where none is clearly faster, or where all fail.

    Args:
        tunable: what to run.
        wanted: the result in float64.
        tolerance: largest error over the largest wanted magnitude.
        device: where.
        rounds: how often each plan is timed, in turn.
    """
    right = [plan for plan in tunable.plans if _error(tunable, plan, wanted) <= tolerance]
    times: dict[Any, list[float]] = {plan: [] for plan in right}
    for _ in range(rounds):
        for plan, values in times.items():
            values.append(time_ms(lambda plan=plan: tunable.run(plan), device))  # type: ignore[misc]
    medians = {plan: statistics.median(values) for plan, values in times.items()}
    rule = tunable.plans[0]
    best = min(medians, key=medians.__getitem__, default=rule)
    return best if rule not in medians or medians[best] < LEAST_GAIN * medians[rule] else rule


def _error(tunable: Tunable, plan: Any, wanted: Sequence[Tensor]) -> float:
    """Returns the error of a plan; infinite where the device has no room for it."""
    from triton.runtime.errors import OutOfResources

    try:
        got = tensors_of(tunable.run(plan))
    except OutOfResources:
        return float("inf")
    return max(relative_error(*pair) for pair in zip(got, wanted, strict=True))


def _layer_scores(inputs: Sequence[Any]) -> Tunable:
    from o3_kernels.ops.layer_scores import launch

    statistics_ = RequestStatistics(*inputs[1:8])._replace(whitening_sign=1)
    (B, _, D), bank = inputs[0].shape, statistics_.bank
    sizes = (B, max(statistics_.whitening.shape[2], bank.shape[2]), D, bank.element_size())
    plans = variations(launch.plan_layer_scores(*sizes), launch.CHANGES)
    return Tunable(sizes, plans, lambda plan: launch.launch_layer_scores(inputs[0], statistics_, plan)[2])


def _orthogonality_penalty(inputs: Sequence[Any]) -> Tunable:
    from o3_kernels.ops.orthogonality_penalty import launch

    new, old = [tensor.detach() for tensor in inputs[0]], inputs[1]
    rows = max(tensor.shape[0] * tensor.shape[1] for tensor in old)
    sizes = (new[0].shape[0], rows, max(tensor.shape[1] for tensor in new), old[0].element_size())
    plans = variations(launch.plan_penalty(*sizes), launch.CHANGES)

    def run(plan: Any) -> list[Tensor]:
        value, gradient = launch.launch_orthogonality_penalty(new, old, True, plan)
        pieces = torch.split(gradient, [tensor.numel() for tensor in new])
        return [value, *(piece.view_as(tensor) for piece, tensor in zip(pieces, new, strict=True))]

    return Tunable(sizes, plans, run)


def _gated_lora(inputs: Sequence[Any]) -> Tunable:
    from o3_kernels.ops.gated_lora import launch

    y, x, a, b, weights = inputs[:5]
    sizes = (x.shape[0] * x.shape[1], a.shape[0], 1, x.shape[2], x.element_size(), processors(x))
    plans = variations(launch.plan_gated_lora(*sizes), launch.CHANGES)

    def run(plan: Any) -> Tensor:
        output: Tensor = y.clone()
        launch.launch_gated_lora([output], x, a, [b], weights, plan)
        return output

    return Tunable(sizes, plans, run)


TUNABLE: dict[str, Callable[[Sequence[Any]], Tunable]] = {
    "layer_scores": _layer_scores,
    "orthogonality_penalty": _orthogonality_penalty,
    "gated_lora": _gated_lora,
}
