"""What is measured: shapes, inputs, the ways to compute the same, and the least bytes and FLOPs."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from benchmarks.kernels import loops
from benchmarks.kernels.others import lora_variants, nearest_variants
from o3_kernels import (
    gated_lora,
    layer_scores,
    live_rows,
    orthogonality_penalty,
    split_halves,
    split_on_gpu,
    stack_history,
)
from o3_kernels.ops.gated_lora.reference import gated_lora_reference

OPERATIONS = ("layer_scores", "orthogonality_penalty", "gated_lora")
LLAMA_WIDTHS = {  # input widths of q, k, v, o, gate, up, down
    "llama-2-7b": (4096, 4096, 4096, 4096, 4096, 4096, 11008),
    "llama-3-8b": (4096, 4096, 4096, 4096, 4096, 4096, 14336),
}
LLAMA_LAYERS = 32
LLAMA_3_PROJECTIONS = {"q": (4096, 4096), "k": (4096, 1024), "gate": (4096, 14336), "down": (14336, 4096)}
ENCODERS = {
    "roberta-large": (24, 1024, 1024),
    "minilm": (6, 384, 400),
}  # layers, width, rows of bank and whitening
FUSION = (3, 384, 32, 64)  # layers, width, centroids and directions of the default detector's MiniLM
OFFICIAL_ROWS = 2  # rows that the row-by-row loop is timed on; its time is scaled to the batch


@dataclass(frozen=True)
class Case:
    """One shape of one operation.

    Args:
        operation: one of `OPERATIONS`.
        name: what the shape stands for.
        sizes: the shape letters.
        make: returns fresh inputs for a seed.
        variants: each computes a tensor, or tensors, from the inputs; "ours" is the public call.
        truth: computes the same in float64.
        bytes: least traffic: every input once, every result once.
        flops: of the products.
        dtype: of the inputs.
        tolerance: largest difference to the truth over its largest magnitude.
        scale: factor on the time of a variant that does a part of the work.
        compiled: the variant that torch.compile takes, or None.
        unverified: variants that compute less on purpose, as a yardstick.
        graphed: time replays of CUDA graphs, without the cost of launching; on a GPU only.
        caller: what calls the operation in this way.
    """

    operation: str
    name: str
    sizes: dict[str, int]
    make: Callable[[int], tuple[Any, ...]]
    variants: dict[str, Callable[..., Any]]
    truth: Callable[..., Any]
    bytes: int
    flops: int
    dtype: str = "float32"
    tolerance: float = 1e-5
    scale: dict[str, float] = field(default_factory=dict)
    compiled: Callable[..., Any] | None = None
    unverified: tuple[str, ...] = ()
    graphed: bool = False
    caller: str = ""


def cases_for(operation: str, device: torch.device) -> list[Case]:
    """Returns the shapes of an operation: all on a GPU, a few that end within a minute on a CPU."""
    gpu = device.type == "cuda"
    if operation == "layer_scores":
        shapes = [
            (name, B, K, *sizes)
            for name, sizes in ENCODERS.items()
            for K in (1, 4, 16, 64)
            for B in (1, 8, 64, 512)
        ]
        cpu = [(f"7 x 384, bank {M}", B, 16, 7, 384, M) for M in (40, 400) for B in (1, 8, 64)]
        paper = [layer_scores_case(*shape, device) for shape in (shapes if gpu else cpu)]
        many = [16, 1000] if gpu else [16]
        return paper + [fusion_case(B, K, *FUSION, device) for K in many for B in (1, 64)]
    if operation == "orthogonality_penalty":
        ranks = (8, 32) if gpu else (8,)
        models = LLAMA_WIDTHS if gpu else ["llama-2-7b"]
        return [penalty_case(model, R, P, device) for model in models for R in ranks for P in (1, 4, 16, 64)]
    batches = {"decode": (16, 1), "prefill": (8, 512)} if gpu else {"decode": (8, 1), "prefill": (4, 16)}
    requests = (1, 4, 16, 64) if gpu else (1, 16)
    projections = LLAMA_3_PROJECTIONS if gpu else {"q": LLAMA_3_PROJECTIONS["q"]}
    return [
        gated_case(f"llama-3-8b {name} {kind}", B, T, K, *widths, device)
        for name, widths in projections.items()
        for kind, (B, T) in batches.items()
        for K in requests
    ]


def _numbers(seed: int, device: torch.device) -> Callable[..., Tensor]:
    """Returns a source of normal numbers."""
    generator = torch.Generator(device).manual_seed(seed)
    return lambda *shape: torch.randn(*shape, generator=generator, device=device)


def layer_scores_case(name: str, B: int, K: int, L: int, D: int, M: int, device: torch.device) -> Case:
    """Returns a case of B rows, K requests, L layers of width D and M bank rows."""
    R, rows = min(M, D), min(B, OFFICIAL_ROWS)
    nearest = nearest_variants() if device.type == "cuda" else {}

    def make(seed: int) -> tuple[Any, ...]:
        normal = _numbers(seed, device)
        bank = torch.nn.functional.normalize(normal(K, L, M, D), dim=3)
        whitening = normal(K, L, R, D) / D
        precision = whitening.mT @ whitening
        ones = torch.ones(K, L, device=device)
        ours = (normal(B, L, D), normal(K, L, D), 0 * ones, whitening, bank, None, -0.5 * ones, -1000 * ones)
        halves = [split_halves(tiles) for tiles in (whitening, bank)] if device.type == "cuda" else ()
        return (*ours, precision, *halves)

    def ours(*inputs: Any) -> Tensor:
        features, means, scale, whitening, bank, *rest = inputs[:8]
        whitening, bank = inputs[9:] or (whitening, bank)  # split when the statistics are fitted
        tiles = whitening, bank
        return layer_scores(features, means, scale, *tiles, *rest, whitening_sign=1).aggregate

    def truth(*inputs: Tensor) -> Tensor:
        features, means, _, whitening, bank = (tensor for tensor in inputs[:5])
        parts = [
            eager(
                *(
                    t.double()
                    for t in (features, means[k : k + 1], means, whitening[k : k + 1], bank[k : k + 1])
                )
            )
            for k in range(K)  # request by request: all at once would take 65 GB
        ]
        return torch.cat(parts)

    def eager(x: Tensor, means: Tensor, _: Tensor, whitening: Tensor, bank: Tensor, *rest: Any) -> Tensor:
        return loops.layer_scores_eager(x, means, whitening, bank)

    def loop(x: Tensor, means: Tensor, *rest: Any) -> Tensor:
        return loops.layer_scores_loop(x, means, rest[6], rest[2])

    def official(x: Tensor, means: Tensor, *rest: Any) -> Tensor:
        return loops.layer_scores_official(x[:rows], means, rest[6], rest[2])

    return Case(
        operation="layer_scores",
        name=name,
        sizes={"B": B, "K": K, "L": L, "D": D, "M": M, "R": R},
        make=make,
        variants={
            "ours": ours,
            "official": official,
            "loop": loop,
            "eager": eager,
            **nearest,
        },
        truth=truth,
        bytes=4 * (B * L * D + K * L * D * (M + R + 1) + 2 * K * B * L),
        flops=2 * K * L * B * D * (M + R),
        scale={"official": B / rows},
        compiled=eager,
        unverified=tuple(nearest),
        caller="o3_lightning.detector.official.score_official",
    )


def fusion_case(B: int, K: int, L: int, D: int, M: int, R: int, device: torch.device) -> Case:
    """The default detector: whitened cosines of unit rows to centroids, averaged over its last layers."""

    def make(seed: int) -> tuple[Any, ...]:
        normal = _numbers(seed, device)
        # the matrices of a layer are adjacent in memory, as the detector stacks them
        bank = torch.nn.functional.normalize(normal(L, K, M, D), dim=3).transpose(0, 1)
        whitening = normal(L, K, R, D).transpose(0, 1) / (2 * math.sqrt(R * D))
        x, ones = torch.nn.functional.normalize(normal(B, L, D), dim=2), torch.ones(K, L, device=device)
        tiles = [split_on_gpu(tensor) for tensor in (whitening, bank)]
        return x, None, 2 * ones, whitening, bank, None, 0 * ones, ones / L, None, *tiles

    def ours(*inputs: Any) -> Tensor:
        statistics = (*inputs[1:3], *inputs[9:], *inputs[5:8])
        return layer_scores(inputs[0], *statistics, whiten_cosine=True).aggregate

    def eager(x: Tensor, _: None, scale: Tensor, whitening: Tensor, bank: Tensor, *rest: Any) -> Tensor:
        return loops.whitened_cosines_eager(x, scale, whitening, bank)

    return Case(
        operation="layer_scores",
        name="minilm, default detector",
        sizes={"B": B, "K": K, "L": L, "D": D, "M": M, "R": R},
        make=make,
        variants={"ours": ours, "eager": eager},
        truth=lambda *inputs: loops.whitened_cosines_eager(
            *(inputs[place].double() for place in (0, 2, 3, 4))
        ),
        bytes=4 * (B * L * D + K * L * D * (M + R) + 2 * K * B * L),
        flops=2 * K * L * B * D * (M + R),
        compiled=eager,
        caller="o3_lightning.detector.score_fusion.score_whitened",
    )


def with_gradient(penalty: Callable[..., Tensor]) -> Callable[..., list[Tensor]]:
    """Returns a function that computes a penalty and its gradients for its first argument."""

    def run(new: list[Tensor], *rest: Any) -> list[Tensor]:
        value = penalty(new, *rest)
        return [value.detach(), *torch.autograd.grad(value, new)]

    return run


def penalty_case(model: str, R: int, P: int, device: torch.device) -> Case:
    """Returns a case of rank R against P earlier requests at the widths of a model."""
    widths = LLAMA_WIDTHS[model] * LLAMA_LAYERS

    def make(seed: int) -> tuple[Any, ...]:
        normal = _numbers(seed, device)
        new = [normal(R, D).requires_grad_() for D in widths]
        groups = []
        for width in sorted(set(widths)):
            modules = [module for module, D in enumerate(widths) if width == D]
            groups.append((modules, normal(len(modules), P * R, width)))
        place = {module: part for modules, old in groups for module, part in zip(modules, old, strict=True)}
        old = [place[module].unflatten(0, (P, R)) for module in range(len(widths))]
        return new, old, groups, stack_history(old) if device.type == "cuda" else old

    def truth(new: list[Tensor], old: list[Tensor], *_: Any) -> list[Tensor]:
        value, gradients = torch.zeros((), dtype=torch.float64, device=device), []
        for new_m, old_m in zip(new, old, strict=True):  # module by module: all at once would take 40 GB
            new_RD, old_ND = new_m.detach().double(), old_m.flatten(0, 1).double()
            overlap_NR = old_ND @ new_RD.T
            value += overlap_NR.square().sum()
            gradients.append(2 * overlap_NR.T @ old_ND)
        return [value, *gradients]

    total = sum(widths)
    return Case(
        operation="orthogonality_penalty",
        name=model,
        sizes={"modules": len(widths), "R": R, "P": P},
        make=make,
        variants={
            "ours": with_gradient(lambda new, old, groups, stacked: orthogonality_penalty(new, stacked)),
            "official": with_gradient(lambda new, old, *_: loops.penalty_official(new, old)),
            "eager": with_gradient(lambda new, _, groups, *__: loops.penalty_eager(new, groups)),
        },
        truth=truth,
        bytes=4 * R * total * (P + 2),
        flops=4 * R * R * P * total,
        compiled=lambda new, _, groups, *__: loops.penalty_eager(new, groups),
        caller="o3_lightning.adapter.module.AdapterModule.penalty",
    )


def gated_case(name: str, B: int, T: int, K: int, D: int, O: int, device: torch.device) -> Case:  # noqa: E741
    """Returns a case of B rows of T tokens, K requests, widths D and O; every second row has no weight."""
    R = 8
    S, live, half = K * R, B // 2, device.type == "cuda"  # every second row has no weight
    dtype = torch.bfloat16 if half else torch.float32

    def make(seed: int) -> tuple[Any, ...]:
        normal = _numbers(seed, device)
        weights = torch.zeros(B, K, device=device)
        weights[torch.arange(B), torch.arange(B) % K] = 1.0  # each row belongs to one request
        weights[::2] = 0
        tensors = (normal(B, T, O), normal(B, T, D), normal(S, D) / D, normal(O, S))
        by_rank = weights.repeat_interleave(R, 1).to(dtype)
        return (*(tensor.to(dtype) for tensor in tensors), by_rank, live_rows(by_rank))

    def ours(*inputs: Any) -> Tensor:
        return gated_lora(*inputs[:5], live=inputs[5])  # the gate knows the rows from its first layer

    def eager(*inputs: Any) -> Tensor:
        return gated_lora_reference(*inputs[:5])

    return Case(
        operation="gated_lora",
        name=name,
        sizes={"B": B, "T": T, "K": K, "D": D, "O": O, "S": S},
        make=make,
        variants={
            "ours": ours,
            "official": lambda y, x, a, b, w, _: loops.gated_lora_official(y, x, a, b, w, R),
            "eager": eager,
            **(lora_variants(R) if half else {}),
        },
        truth=lambda *inputs: eager(*(tensor.double() for tensor in inputs)),
        bytes=(2 if half else 4) * (B * T * 2 * O + live * T * D + S * (D + O) + B * S),
        flops=2 * live * T * S * (D + O),
        dtype="bfloat16" if half else "float32",
        tolerance=1e-2 if half else 1e-5,
        compiled=eager,
        caller="o3_lightning.gating.linear.GatedLinear.forward",
    )
