"""Fused operations that choose an implementation for the device of their tensors.

Each operation is a folder under `ops/`: `reference.py` defines it in plain PyTorch, `vectorised.py` serves
CPUs, `triton_kernel.py` and `launch.py` CUDA devices, and `operator.py` contains the public call with its
checks, gradient and registration with torch. Triton is imported by the first CUDA call and is optional.
"""

from o3_kernels.halves import split_halves, split_on_gpu
from o3_kernels.ops.gated_lora.operator import gated_lora, gated_lora_group
from o3_kernels.ops.gated_lora.reference import gated_lora_reference
from o3_kernels.ops.gated_lora.vectorised import live_rows
from o3_kernels.ops.layer_scores.operator import LayerScores, layer_scores
from o3_kernels.ops.layer_scores.reference import layer_scores_reference
from o3_kernels.ops.layer_scores.statistics import RequestStatistics
from o3_kernels.ops.orthogonality_penalty.operator import orthogonality_penalty
from o3_kernels.ops.orthogonality_penalty.reference import orthogonality_penalty_reference
from o3_kernels.ops.orthogonality_penalty.vectorised import stack_history

__all__ = [
    "LayerScores",
    "RequestStatistics",
    "gated_lora",
    "gated_lora_group",
    "gated_lora_reference",
    "layer_scores",
    "layer_scores_reference",
    "live_rows",
    "orthogonality_penalty",
    "orthogonality_penalty_reference",
    "split_halves",
    "split_on_gpu",
    "stack_history",
]
