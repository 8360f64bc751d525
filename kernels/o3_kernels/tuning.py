"""Block sizes that were measured on a device: read from a file, so that every run takes the same ones.

Each launch has a rule for its block sizes. `python -m benchmarks.kernels --tune` times a short list of
changes to what the rule says and keeps the fastest in `tuned/<device>.json`. Nothing is timed while a model
runs: unlike a tuner inside the launch, this gives the same bits in every process and works under CUDA graphs.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import torch

__all__ = ["TABLES", "Changes", "chosen_plan", "device_file_name", "shape_key", "variations"]

TABLES = Path(__file__).parent / "tuned"
SMALLEST_BLOCK = 16  # the smallest side of a tile that the matrix units take
Plan = TypeVar("Plan")
Changes = Mapping[str, int | float]  # of a field: a float is a factor, an int a value


def chosen_plan(
    operation: str, rule: Callable[..., Plan], sizes: Sequence[int], device: torch.device
) -> Plan:
    """Returns the rule's plan, with the block sizes that were measured for sizes like these, if any were.

    Args:
        operation: whose entries.
        rule: returns a named tuple of block sizes for the sizes.
        sizes: its arguments; those between two powers of two share an entry.
        device: where the kernel will run; only GPUs have measured sizes.
    """
    plan = rule(*sizes)
    if device.type != "cuda":
        return plan
    index = torch.cuda.current_device() if device.index is None else device.index
    return _changed(plan, _table(TABLES, _device_name(index)).get(shape_key(operation, sizes), {}))


def shape_key(operation: str, sizes: Sequence[int]) -> str:
    """Returns the name of an entry: the sizes rounded up to powers of two."""
    return " ".join([operation, *(str(1 << max(size - 1, 0).bit_length()) for size in sizes)])


def device_file_name(device_name: str) -> str:
    """Returns a device's name as a file name."""
    return re.sub(r"[^a-z0-9]+", "-", device_name.lower()).strip("-")


def variations(plan: Plan, changes: Sequence[Changes]) -> list[Plan]:
    """Returns the plan and its changed forms, each once."""
    plans = [plan]
    for change in changes:
        new = _changed(plan, change)
        if new not in plans:
            plans.append(new)
    return plans


def _changed(plan: Plan, change: Changes) -> Plan:
    """Returns a plan with some fields set or multiplied; a factor stops at the smallest block."""
    fields: Any = plan
    values = {
        name: max(int(getattr(plan, name) * value), SMALLEST_BLOCK) if isinstance(value, float) else value
        for name, value in change.items()
    }
    changed: Plan = fields._replace(**values)
    return changed


@lru_cache
def _device_name(index: int) -> str:
    return torch.cuda.get_device_name(index)


@lru_cache
def _table(folder: Path, device_name: str) -> dict[str, dict[str, int]]:
    """Returns the entries of a device; none where nobody measured."""
    path = folder / f"{device_file_name(device_name)}.json"
    entries: dict[str, dict[str, int]] = json.loads(path.read_text()) if path.exists() else {}
    return entries
