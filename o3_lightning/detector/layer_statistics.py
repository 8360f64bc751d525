"""What a request keeps of its features at each layer: a shrunk Gaussian in low-rank form and centroids.

Shape letters: N forget prompts, L layers, D width, R rank, M bank rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from sklearn.covariance import ledoit_wolf_shrinkage
from torch import Tensor

__all__ = ["LayerStatistics", "fit_gaussian", "fit_statistics", "spherical_centroids"]

KMEANS_STEPS = 20
SMALLEST_VARIANCE = 1e-6


@dataclass(frozen=True)
class LayerStatistics:
    """The state that `o3_kernels.layer_scores` needs, for one request.

    Args:
        means: [L, D].
        precision_scale: [L].
        whitening: [L, R, D]; rows of zeros pad layers of lower rank.
        bank: rows of length 1 [L, M, D].
    """

    means: Tensor
    precision_scale: Tensor
    whitening: Tensor
    bank: Tensor


def fit_gaussian(features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Returns mean [D], 1 / s and whitening U [R, D] of a Ledoit-Wolf Gaussian: precision = I / s - U^T U.

    Args:
        features: [N, D], any N >= 1; with one row or equal rows the covariance is a small multiple of I.

    Source:
        Ledoit and Wolf 2004; O3 uses the empirical covariance, which is singular where N <= D.
    """
    x = features.double()
    mean = x.mean(dim=0)
    centred = x - mean
    shrinkage = 1.0 if len(x) < 2 else float(ledoit_wolf_shrinkage(centred.numpy(), assume_centered=True))
    _, singular, axes = torch.linalg.svd(centred, full_matrices=False)
    variances = singular.square() / len(x)
    spherical = max(shrinkage * float(variances.sum()) / x.shape[1], SMALLEST_VARIANCE)
    kept = (1 - shrinkage) * variances
    scale = torch.sqrt(kept / (spherical * (kept + spherical)))
    return mean.float(), torch.tensor(1 / spherical, dtype=torch.float32), (scale[:, None] * axes).float()


def spherical_centroids(rows: Tensor, count: int, seed: int) -> Tensor:
    """Returns `count` unit centroids [count, D] of unit rows [N, D] by k-means on the sphere."""
    generator = torch.Generator().manual_seed(seed)
    centroids = rows[torch.randperm(len(rows), generator=generator)[:count]].clone()
    for _ in range(KMEANS_STEPS):
        nearest = (rows @ centroids.T).argmax(dim=1)
        sums = torch.zeros_like(centroids).index_add_(0, nearest, rows)
        filled = sums.norm(dim=1) > 0
        centroids[filled] = torch.nn.functional.normalize(sums[filled], dim=1)
    return centroids


def fit_statistics(features: Tensor, *, centroids: int, rows_per_centroid: int, seed: int) -> LayerStatistics:
    """Fits Gaussian and centroids at every layer of features [N, L, D]."""
    count = max(1, min(centroids, len(features) // rows_per_centroid))
    means, scales, whitenings, banks = [], [], [], []
    for layer in range(features.shape[1]):
        mean, scale, whitening = fit_gaussian(features[:, layer])
        means.append(mean)
        scales.append(scale)
        whitenings.append(whitening)
        rows = torch.nn.functional.normalize(features[:, layer], dim=1)
        banks.append(spherical_centroids(rows, count, seed))
    return LayerStatistics(
        torch.stack(means), torch.stack(scales), torch.stack(whitenings), torch.stack(banks)
    )
