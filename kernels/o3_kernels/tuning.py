"""Block sizes measured on a device, read from `tuned/<device>.json`.

Each launch has a rule for its block sizes; `python -m benchmarks.kernels --tune --out DIR` times variations
of it and writes the fastest to `DIR/tuned/`, to be copied here. Nothing is timed while a model runs, so that
all processes use the same block sizes, get the same bits, and can record CUDA graphs.
"""

import json
import re
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeVar

import torch

from o3_kernels.blocks import next_power_of_two

TABLES = Path(__file__).parent / "tuned"
Plan = TypeVar("Plan")


def chosen_plan(
    operation: str,
    rule: Callable[..., Plan],
    sizes: Sequence[int],
    device: torch.device,
    more: Sequence[int] = (),
) -> Plan:
    """Returns the plan of the rule for some sizes, with block sizes measured on a GPU if there are any.

    `rule` returns a named tuple of block sizes for the sizes; entries of the table are kept by these and
    `more` sizes, rounded up to powers of two.
    """
    plan = rule(*sizes)
    if device.type != "cuda":
        return plan
    index = torch.cuda.current_device() if device.index is None else device.index
    changed: Plan = _measured_plan(TABLES, _device_name(index), operation, plan, (*sizes, *more))
    return changed


@lru_cache(maxsize=1024)
def _measured_plan(folder: Path, device_name: str, operation: str, plan: Any, sizes: Sequence[int]) -> Any:
    """Returns the plan with the entries of the table; cached, because decoding asks for it in every layer."""
    return plan._replace(**_table(folder, device_name).get(shape_key(operation, sizes), {}))


def shape_key(operation: str, sizes: Sequence[int]) -> str:
    """Returns the key of an entry: the sizes rounded up to powers of two."""
    return " ".join([operation, *(str(next_power_of_two(size)) for size in sizes)])


def device_file_name(device_name: str) -> str:
    """Returns the name of a device in a form suitable for files."""
    return re.sub(r"[^a-z0-9]+", "-", device_name.lower()).strip("-")


@lru_cache
def _device_name(index: int) -> str:
    return torch.cuda.get_device_name(index)


@lru_cache
def _table(folder: Path, device_name: str) -> dict[str, dict[str, int]]:
    """Returns the entries of a device; empty without measurements."""
    path = folder / f"{device_file_name(device_name)}.json"
    entries: dict[str, dict[str, int]] = json.loads(path.read_text()) if path.exists() else {}
    return entries
