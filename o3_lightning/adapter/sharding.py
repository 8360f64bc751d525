"""A frozen copy of the base model, sharded over the processes with FSDP2.

The adapter's factors are not sharded: they are small, and the orthogonality penalty needs all of them.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from lightning import Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor


def is_sharding(trainer: Trainer) -> bool:
    """Whether a trainer shards the base model over its processes."""
    return isinstance(trainer.strategy, ModelParallelStrategy)


@contextmanager
def sharded_twin(model: Any) -> Iterator[Any]:
    """Yields a frozen, sharded copy of a model; the model itself is only read.

    On GPUs the whole model is moved to the CPU for that time, so that a GPU holds only its shard. The model
    is a causal one of Hugging Face, the same in every process, its decoder layers in a `ModuleList`.
    """
    device = next(model.parameters()).device
    target = torch.device("cuda", torch.cuda.current_device()) if torch.cuda.is_available() else device
    if target.type == "cuda":
        model.to("cpu")
    try:
        yield shard(model, target)
    finally:
        model.to(device)


def shard(model: Any, device: torch.device) -> Any:
    """Returns the copy: created without weights, sharded, then filled with each process's shard."""
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    sources = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    memo = {id(tensor): empty_like(tensor) for tensor in sources.values()}  # weights that are tied stay tied
    twin = copy.deepcopy(model, memo)
    lists = [list(module) for module in twin.modules() if isinstance(module, nn.ModuleList)]
    for layer in max(lists, key=len, default=[]):  # the decoder layers
        fully_shard(layer, mesh=mesh)
    fully_shard(twin, mesh=mesh)
    twin.to_empty(device=device)
    with torch.no_grad():
        for name, place in (*twin.named_parameters(), *twin.named_buffers()):
            source = sources[name].to(device)
            if isinstance(place, DTensor):
                part = distribute_tensor(source, place.device_mesh, place.placements)
                place.to_local().copy_(part.to_local())
            else:
                place.copy_(source)
    return twin.eval().requires_grad_(False)


def empty_like(tensor: Tensor) -> Tensor:
    """Returns a frozen placeholder without storage."""
    empty = torch.empty_like(tensor, device="meta")
    return nn.Parameter(empty, requires_grad=False) if isinstance(tensor, nn.Parameter) else empty


def average_gradients(parameters: list[nn.Parameter]) -> None:
    """Averages gradients over the processes, as data-parallel training does."""
    for parameter in parameters:
        if parameter.grad is not None:
            dist.all_reduce(parameter.grad)
            parameter.grad /= dist.get_world_size()
