"""What a user would pick instead, as further columns where it is installed: vLLM's LoRA kernels and FAISS."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

Variant = Callable[..., Any]


def lora_variants(rank: int) -> dict[str, Variant]:
    """Returns vLLM's shrink and expand for [B,T] rows of one adapter or none each; empty without vLLM.

    They take [y, x, a, b, weights] as `gated_lora` does; the rows of a request have weight 1.
    """
    if find_spec("vllm") is None:
        return {}
    from vllm.lora.ops.triton_ops import (  # type: ignore[import-not-found]
        LoRAKernelMeta,
        lora_expand,
        lora_shrink,
    )

    prepared: dict[int, tuple[Any, ...]] = {}

    def prepare(y: Tensor, x: Tensor, a: Tensor, b: Tensor, weights: Tensor) -> tuple[Any, ...]:
        """Stacks adapters and sorts tokens once, as an engine does for all layers of a step."""
        S, D = a.shape
        own = weights[:, ::rank]
        request = torch.where(own.any(1), own.float().argmax(1), -1).to(torch.int32)
        tokens = request.repeat_interleave(x.shape[1])
        meta = LoRAKernelMeta.make(S // rank, len(tokens), device=x.device)
        meta.prepare_tensors(tokens)
        stacked_b = b.T.reshape(S // rank, rank, -1).mT.contiguous()
        return a.view(S // rank, rank, D), stacked_b, meta.meta_args(len(tokens))

    def run(y: Tensor, x: Tensor, a: Tensor, b: Tensor, weights: Tensor, *_: Any) -> Tensor:
        if x.data_ptr() not in prepared:
            prepared.clear()
            prepared[x.data_ptr()] = prepare(y, x, a, b, weights)
        stacked_a, stacked_b, meta = prepared[x.data_ptr()]
        rows, out = x.flatten(0, 1), y.clone()
        hidden = torch.zeros((1, len(rows), rank), dtype=torch.float32, device=x.device)
        lora_shrink(rows, [stacked_a], hidden, *meta, 1.0)
        lora_expand(hidden, [stacked_b], out.view(len(rows), -1), *meta, offset_start=0, add_inputs=True)
        return out

    return {"vllm": run}


def nearest_variants() -> dict[str, Variant]:
    """Returns FAISS's exact search for the largest cosine, no distances; empty without FAISS for GPUs."""
    if find_spec("faiss") is None:
        return {}
    import faiss  # type: ignore[import-not-found]

    if not hasattr(faiss, "StandardGpuResources"):
        return {}
    import faiss.contrib.torch_utils  # type: ignore[import-not-found]

    resources = faiss.StandardGpuResources()

    def run(x: Tensor, means: Tensor, scale: Tensor, whitening: Tensor, bank: Tensor, *_: Any) -> Tensor:
        (K, L), unit = scale.shape, torch.nn.functional.normalize(x, dim=2).transpose(0, 1).contiguous()
        metric = faiss.METRIC_INNER_PRODUCT
        found = [
            faiss.knn_gpu(resources, unit[layer], bank[k, layer], 1, metric=metric)[0]
            for k in range(K)
            for layer in range(L)
        ]
        return torch.stack(found).view(K, L, -1).sum(1)

    return {"faiss": run}
