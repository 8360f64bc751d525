import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf, ledoit_wolf_shrinkage

from o3_lightning.detector.layer_statistics import (
    fit_precision,
    fit_whitened_centroids,
    nearest_centroid,
    principal_axes,
    shrinkage_of,
    spherical_centroids,
)


def random_rows(rows, width, seed=0):
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(width, width, generator=generator, dtype=torch.float64)
    return torch.randn(rows, width, generator=generator, dtype=torch.float64) @ mixing


@pytest.mark.parametrize(("rows", "width"), [(40, 7), (9, 20)], ids=["tall", "wide"])
def test_precision_equals_ledoit_wolf(rows, width):
    x = random_rows(rows, width)
    centred = x - x.mean(0)
    scale, whitening = fit_precision(centred, most_rank=width)
    ours = float(scale) * torch.eye(width, dtype=torch.float64) - whitening.T @ whitening
    theirs = LedoitWolf(assume_centered=True).fit(centred.numpy()).precision_
    np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-4, atol=1e-6 * np.abs(theirs).max())


@pytest.mark.parametrize(("rows", "width"), [(40, 7), (9, 20), (2, 30)])
def test_shrinkage_from_the_eigenvalues_equals_that_from_the_entries(rows, width):
    centred = random_rows(rows, width) - random_rows(rows, width).mean(0)
    variances, _ = principal_axes(centred)
    expected = ledoit_wolf_shrinkage(centred.numpy(), assume_centered=True)
    assert shrinkage_of(centred, variances) == pytest.approx(expected, abs=1e-9)


def test_precision_with_fewer_directions_is_positive():
    x = random_rows(60, 12)
    scale, whitening = fit_precision(x - x.mean(0), most_rank=4)
    assert whitening.shape == (4, 12)
    matrix = float(scale) * torch.eye(12, dtype=torch.float64) - whitening.T @ whitening
    assert float(torch.linalg.eigvalsh(matrix).min()) > 0


def test_precision_of_equal_rows_is_a_multiple_of_the_identity():
    scale, whitening = fit_precision(torch.zeros(5, 3, dtype=torch.float64), most_rank=3)
    assert float(scale) > 0
    assert whitening.shape == (0, 3)


def test_centroids_find_separate_clusters():
    directions = torch.eye(3, 8, dtype=torch.float64)
    noise = 0.05 * random_rows(30, 8)
    rows = torch.nn.functional.normalize(directions.repeat_interleave(10, 0) + noise / noise.norm(), dim=1)
    clusters = nearest_centroid(rows, spherical_centroids(rows, 3, seed=0))
    assert [len(set(clusters[start : start + 10].tolist())) for start in (0, 10, 20)] == [1, 1, 1]
    assert len(set(clusters.tolist())) == 3


def test_whitened_cosine_equals_explicit_whitening():
    rows = torch.nn.functional.normalize(random_rows(40, 6), dim=1)
    clusters = torch.arange(40) % 4
    fitted = fit_whitened_centroids(rows, clusters, most_rank=6)
    precision = (
        float(fitted.scale) * torch.eye(6, dtype=torch.float64) - fitted.whitening.T @ fitted.whitening
    )
    root = torch.linalg.cholesky(precision)
    means = torch.stack([rows[clusters == c].mean(0) for c in range(4)])
    expected = torch.nn.functional.cosine_similarity((rows @ root)[:, None], (means @ root)[None], dim=2)
    length = torch.einsum("nd,de,ne->n", rows, precision, rows).sqrt()
    torch.testing.assert_close(rows @ fitted.bank.T / length[:, None], expected, rtol=1e-6, atol=1e-8)


def test_what_varies_inside_clusters_is_measured_without_bias():
    rows, clusters = random_rows(30, 6), torch.arange(30) % 8
    fitted = fit_whitened_centroids(rows, clusters, most_rank=6)
    deviations = []
    for cluster in range(8):
        own = rows[clusters == cluster].numpy()
        deviations.append((own - own.mean(0)) * np.sqrt(len(own) / (len(own) - 1)))
    theirs = LedoitWolf(assume_centered=True).fit(np.concatenate(deviations)).precision_
    ours = float(fitted.scale) * np.eye(6) - (fitted.whitening.T @ fitted.whitening).numpy()
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6 * np.abs(theirs).max())


def test_no_centroid_is_one_row_alone():
    rows = torch.nn.functional.normalize(torch.eye(4)[[0, 0, 0, 1, 1, 2]] + 0.01 * torch.ones(4), dim=1)
    centroids = spherical_centroids(rows, 3, seed=0)
    assert len(centroids) == 2
    assert float((centroids @ rows[-1]).max()) < 0.99
