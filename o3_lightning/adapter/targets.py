"""Which linear layers of a model an adapter changes."""

import logging
import re
from collections.abc import Collection, Iterable, Sequence
from typing import Any

from peft import LoraConfig
from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers
from torch import nn
from transformers.pytorch_utils import Conv1D

from o3_lightning.adapter.config import ALL_LINEAR
from o3_lightning.common.errors import InputError

IN_BLOCK = re.compile(r"\.\d+\.")  # a numbered block of the model: not the embedding, not the output head
ROUTERS = ("router", "gate")
FIELD = "adapter.targets"
logger = logging.getLogger(__name__)


def choose_targets(model: nn.Module, targets: Sequence[str]) -> list[str]:
    """Returns PEFT's `target_modules`: names of linear layers, or paths where a name fits other modules too.

    Args:
        model: the base model.
        targets: endings of layer names, or "all-linear" alone for every linear layer of the blocks. Left out
            are experts, whose tokens cannot be told apart by row, their routers, and layers whose weights a
            state-space mixer reads without calling them.

    Raises:
        InputError: a target matches no linear layer that can be adapted; the message names those that can.
    """
    linear = {path: each for path, each in model.named_modules() if isinstance(each, nn.Linear | Conv1D)}
    blocks = [path for path in linear if IN_BLOCK.search(path)]
    able = [path for path in linear if can_adapt(model, path)]
    if list(targets) == [ALL_LINEAR]:
        chosen = [path for path in able if path in set(blocks)]
    else:
        known = ", ".join(sorted({leaf(path) for path in able})) or "none"
        for target in targets:
            if not any(ends_with(path, target) for path in able):
                message = f"{target!r} matches no linear layer that can be adapted; there are: {known}"
                raise InputError(message, field=FIELD)
        chosen = [path for path in able if any(ends_with(path, target) for target in targets)]
    converted = names_of_experts(model, {leaf(path) for path in chosen})
    kept = [path for path in chosen if leaf(path) not in converted]
    if not kept:
        raise InputError("the model has no linear layer that can be adapted", field=FIELD)
    log_share(model, kept, blocks)
    return shortest_names(kept, [path for path, _ in model.named_modules()])


def can_adapt(model: nn.Module, path: str) -> bool:
    """Whether a linear layer is called with one row of its input per prompt, as the gate needs it."""
    parent: Any = model.get_submodule(path.rpartition(".")[0])
    is_mixer = hasattr(parent, "A_log") and hasattr(parent, "D")  # Mamba and its kin; their fused kernels
    unused = is_mixer and leaf(path) in ("out_proj", "dt_proj")  # read the weights of these two
    return (
        not unused
        and leaf(path) not in ROUTERS
        and not any("expert" in part and "shared" not in part for part in path.split("."))
    )


def names_of_experts(model: nn.Module, names: Collection[str]) -> set[str]:
    """Returns the layer names that PEFT would read as fused experts in this architecture."""
    probe = LoraConfig(target_modules=sorted(names))
    try:
        convert_peft_config_for_transformers(probe, model, None)
    except ValueError as error:
        raise InputError(str(error), field=FIELD) from error
    return set(names) - set(probe.target_modules or ())


def log_share(model: nn.Module, kept: Sequence[str], blocks: Sequence[str]) -> None:
    """Logs how many linear layers of the blocks are adapted, and what is not."""
    names = ", ".join(sorted({leaf(path) for path in kept}))
    inside = set(kept) & set(blocks)
    left = ", ".join(sorted({leaf(path) for path in blocks if path not in inside}))
    fused = any(each.dim() == 3 and "experts" in path for path, each in model.named_parameters())
    logger.info(
        "adapting %d of %d linear layers of the blocks: %s%s%s",
        len(inside),
        len(blocks),
        names,
        f"; not adapted: {left}" if left else "",
        "; fused experts are not adapted" if fused else "",
    )


def shortest_names(chosen: Sequence[str], paths: Iterable[str]) -> list[str]:
    """Returns the layers' names where these name no other module, and their paths elsewhere."""
    inside, found = set(chosen), set()
    named: dict[str, bool] = {}
    for path in paths:
        named[leaf(path)] = named.get(leaf(path), True) and path in inside
    for path in chosen:
        found.add(leaf(path) if named[leaf(path)] else path)
    return sorted(found)


def leaf(path: str) -> str:
    """Returns the last name of a module path."""
    return path.rpartition(".")[2]


def ends_with(path: str, target: str) -> bool:
    """Whether a module path ends with whole names, as PEFT matches them."""
    return path == target or path.endswith(f".{target}")
