"""What a user would pick instead, as columns where installed: LoRA kernels of vLLM and SGLang, and FAISS."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import torch
from torch import Tensor

Variant = Callable[..., Any]
CHUNK = 16  # tokens of one adapter that SGLang takes together, its smallest


def lora_variants(rank: int) -> dict[str, Variant]:
    """Returns the LoRA kernels of vLLM and SGLang, where installed, for rows of one adapter or none each.

    They take [y, x, a, b, weights] as `gated_lora` does; the rows of a request have weight 1.
    """
    engines = {"vllm": _vllm, "sglang": _sglang}
    return {name: engine(rank) for name, engine in engines.items() if find_spec(name) is not None}


def _token_requests(x: Tensor, weights: Tensor, rank: int) -> Tensor:
    """Returns the request of each of the B*T tokens, -1 for none."""
    own = weights[:, ::rank]
    request = torch.where(own.any(1), own.float().argmax(1), -1).to(torch.int32)
    return request.repeat_interleave(x.shape[1])


def _stacked(a: Tensor, b: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Returns the adapters as [K,R,D] and [K,O,R]."""
    K = len(a) // rank
    return a.view(K, rank, -1), b.T.reshape(K, rank, -1).mT.contiguous()


def _once(prepare: Callable[..., tuple[Any, ...]]) -> Callable[..., tuple[Any, ...]]:
    """Returns the preparation, made once for an input, as an engine does for all layers of a step."""
    prepared: dict[int, tuple[Any, ...]] = {}

    def of(x: Tensor, *rest: Tensor) -> tuple[Any, ...]:
        if x.data_ptr() not in prepared:
            prepared.clear()
            prepared[x.data_ptr()] = prepare(x, *rest)
        return prepared[x.data_ptr()]

    return of


def _vllm(rank: int) -> Variant:
    from vllm.lora.ops.triton_ops import (
        LoRAKernelMeta,
        lora_expand,
        lora_shrink,
    )

    @_once
    def prepare(x: Tensor, a: Tensor, b: Tensor, weights: Tensor) -> tuple[Any, ...]:
        tokens = _token_requests(x, weights, rank)
        meta = LoRAKernelMeta.make(len(a) // rank, len(tokens), device=x.device)
        meta.prepare_tensors(tokens)
        return *_stacked(a, b, rank), meta.meta_args(len(tokens))

    def run(y: Tensor, x: Tensor, a: Tensor, b: Tensor, weights: Tensor, *_: Any) -> Tensor:
        stacked_a, stacked_b, meta = prepare(x, a, b, weights)
        rows, out = x.flatten(0, 1), y.clone()
        hidden = torch.zeros((1, len(rows), rank), dtype=torch.float32, device=x.device)
        lora_shrink(rows, [stacked_a], hidden, *meta, 1.0)
        lora_expand(hidden, [stacked_b], out.view(len(rows), -1), *meta, offset_start=0, add_inputs=True)
        return out

    return run


def _sglang(rank: int) -> Variant:
    """Tokens without an adapter have one of rank 0, which its kernels pass over."""
    from sglang.srt.lora.triton_ops import (  # type: ignore[import-not-found]
        chunked_sgmv_lora_expand_forward,
        chunked_sgmv_lora_shrink_forward,
    )
    from sglang.srt.lora.utils import LoRABatchInfo  # type: ignore[import-not-found]

    @_once
    def prepare(x: Tensor, a: Tensor, b: Tensor, weights: Tensor) -> tuple[Any, ...]:
        K, tokens = len(a) // rank, _token_requests(x, weights, rank)
        order = torch.argsort(torch.where(tokens < 0, K, tokens), stable=True)
        owners: list[int] = []
        starts: list[int] = []
        found, counts = torch.unique_consecutive(tokens[order], return_counts=True)
        first = 0
        for owner, count in zip(found.tolist(), counts.tolist(), strict=True):
            chunks = range(first, first + count, CHUNK)
            owners += [owner % (K + 1)] * len(chunks)
            starts += chunks
            first += count

        def numbers(values: list[int], dtype: torch.dtype = torch.int32) -> Tensor:
            return torch.tensor(values, dtype=dtype, device=x.device)

        info = LoRABatchInfo(
            use_cuda_graph=False,
            bs=len(x),
            num_segments=len(owners),
            seg_indptr=numbers([*starts, len(tokens)]),
            weight_indices=numbers(owners),
            lora_ranks=numbers([rank] * K + [0], torch.int64),
            scalings=numbers([1] * (K + 1), torch.float32),
            max_len=CHUNK,
            seg_lens=None,
            permutation=order.to(torch.int32),
        )
        return *_stacked(a, b, rank), info, numbers([0, len(b)])

    def run(y: Tensor, x: Tensor, a: Tensor, b: Tensor, weights: Tensor, *_: Any) -> Tensor:
        stacked_a, stacked_b, info, slices = prepare(x, a, b, weights)
        out = y.clone()
        hidden = chunked_sgmv_lora_shrink_forward(x.flatten(0, 1), stacked_a, info, 1)
        flat = out.view(-1, len(b))
        chunked_sgmv_lora_expand_forward(hidden, stacked_b, info, slices, len(b), flat)
        return out

    return run


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
