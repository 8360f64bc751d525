"""What a request keeps of its features: shrunk Gaussians in low-rank form, and centroids.

A Ledoit-Wolf covariance V diag(l) V^T + s I has the precision I / s - U^T U with U of rank R, so no D x D
matrix is ever kept. Shape letters: N forget prompts, L layers, D width, R rank, M centroids.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

KMEANS_STEPS = 12
SMALLEST_CLUSTER = 2  # no centroid is the feature of one prompt
SMALLEST_VARIANCE_FRACTION = 1e-3
SMALLEST_VARIANCE = 1e-8


def fit_precision(centred: Tensor, most_rank: int) -> tuple[Tensor, Tensor]:
    """Returns 1 / s and U [R, D] of the Ledoit-Wolf precision I / s - U^T U of centred rows.

    Args:
        centred: rows of mean zero [N, D], float64; rows that are all zero give a multiple of the identity.
        most_rank: directions kept; the variance of the others goes into s.

    Source:
        Ledoit and Wolf 2004. O3 takes the empirical covariance, singular where N <= D.
    """
    N, D = centred.shape
    total = float(centred.square().sum()) / max(N, 1)
    if total < SMALLEST_VARIANCE:
        return torch.tensor(1 / SMALLEST_VARIANCE_FRACTION), centred.new_zeros(0, D)
    values, axes = principal_axes(centred)
    shrinkage = shrinkage_of(centred, values)
    rank = min(most_rank, N, D)
    rest = float(values[rank:].sum()) * (1 - shrinkage) / max(D - rank, 1)
    spherical = shrinkage * total / D + rest
    spherical = max(spherical, SMALLEST_VARIANCE_FRACTION * total / D)
    kept = ((1 - shrinkage) * values[:rank] - rest).clamp_min(0)
    scale = torch.sqrt(kept / (spherical * (kept + spherical)))
    return torch.tensor(1 / spherical), scale[:, None] * axes[:rank]


def shrinkage_of(centred: Tensor, variances: Tensor) -> float:
    """Returns Ledoit and Wolf's share of the identity, in [0, 1], for centred rows [N, D].

    Args:
        centred: rows of mean zero.
        variances: all eigenvalues of their covariance that are not zero; with them, the sums over the
            entries of the covariance that the definition asks for are sums over N + D numbers.
    """
    N, D = centred.shape
    mean = float(centred.square().sum()) / N / D
    squared = float(variances.square().sum())
    apart = squared / D - mean**2
    noise = (float(centred.square().sum(dim=1).square().sum()) / N - squared) / (N * D)
    return min(noise, apart) / apart if apart > 0 and noise > 0 and N > 1 else float(N == 1)


def principal_axes(centred: Tensor) -> tuple[Tensor, Tensor]:
    """Returns variances, largest first, and unit axes, one a row, of centred rows [N, D]; min(N, D) of them.

    The smaller of the two Gram matrices is decomposed: N is tens where D is hundreds.
    """
    N, D = centred.shape
    if N >= D:
        values, axes = torch.linalg.eigh(centred.T @ centred / N)
        return values.flip(0).clamp_min(0), axes.flip(1).T
    values, mixtures = torch.linalg.eigh(centred @ centred.T / N)
    values, mixtures = values.flip(0).clamp_min(0), mixtures.flip(1)
    return values, F.normalize(mixtures.T @ centred, dim=1)


def spherical_centroids(rows: Tensor, count: int, seed: int) -> Tensor:
    """Returns at most `count` unit centroids of unit rows [N, D], count <= N, by k-means on the sphere.

    Seeds are spread out: each next one is the row farthest from those chosen.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen = [int(torch.randint(len(rows), (1,), generator=generator))]
    closest = rows @ rows[chosen[0]]
    for _ in range(count - 1):
        chosen.append(int(closest.argmin()))
        closest = torch.maximum(closest, rows @ rows[chosen[-1]])
    centroids = rows[chosen].clone()
    for _ in range(KMEANS_STEPS):
        sums = torch.zeros_like(centroids).index_add_(0, nearest_centroid(rows, centroids), rows)
        filled = sums.norm(dim=1) > 0
        centroids[filled] = F.normalize(sums[filled], dim=1)
    return drop_lonely(rows, centroids)


def drop_lonely(rows: Tensor, centroids: Tensor) -> Tensor:
    """Returns the centroids without those of a single row, which would give that row away.

    Rows of a dropped centroid join the next one; with no other centroid the mean of all rows is left.
    """
    while len(centroids) > 1:
        nearest = nearest_centroid(rows, centroids)
        shared = torch.bincount(nearest, minlength=len(centroids)) >= SMALLEST_CLUSTER
        if not shared.any():
            break
        sums = torch.zeros_like(centroids).index_add_(0, nearest, rows)
        centroids = F.normalize(sums[shared], dim=1)
        if shared.all():
            return centroids
    return F.normalize(rows.sum(dim=0, keepdim=True), dim=1)


def nearest_centroid(rows: Tensor, centroids: Tensor) -> Tensor:
    """Returns the number of the centroid with the largest product for each row."""
    return (rows @ centroids.T).argmax(dim=1)


@dataclass(frozen=True)
class WhitenedCentroids:
    """Centroids seen through the precision P of what varies inside a cluster, at one layer.

    Args:
        scale: 1 / s of P.
        whitening: U of P [R, D].
        bank: P c / sqrt(c^T P c) for each centroid c [M, D].
    """

    scale: Tensor
    whitening: Tensor
    bank: Tensor


def fit_whitened_centroids(rows: Tensor, clusters: Tensor, most_rank: int) -> WhitenedCentroids:
    """Fits the precision of unit rows [N, D] around the means of their clusters [N].

    Directions in which prompts of one cluster differ (the phrasing) count less than those in which clusters
    differ (the knowledge): linear discriminant analysis with clusters for classes.
    """
    count = int(clusters.max()) + 1
    sizes = torch.bincount(clusters, minlength=count).to(rows.dtype)
    means = torch.zeros(count, rows.shape[1], dtype=rows.dtype).index_add_(0, clusters, rows)
    means = means / sizes.clamp_min(1)[:, None]
    own = sizes[clusters]
    spread = (rows - means[clusters]) * torch.sqrt(own / (own - 1).clamp_min(1))[:, None]
    several = own > 1
    scale, whitening = fit_precision(spread[several] if several.any() else 0 * spread, most_rank)
    centroids = means[sizes > 0]
    pulled = scale * centroids - (centroids @ whitening.T) @ whitening
    length = (centroids * pulled).sum(dim=1).clamp_min(SMALLEST_VARIANCE).sqrt()
    return WhitenedCentroids(scale, whitening, pulled / length[:, None])
