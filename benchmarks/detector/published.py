"""Detectors with which O3 compares its own: Mahalanobis distance features, and aggregated layer scores.

The experiments here can name them as presets, "mdf" and "agg". Both methods give a score alone; the weight is
1 where it is at least that of 95 % of the forget prompts, else 0.
Shapes: N texts, M forget prompts, L layers, D width, P directions.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import normalize

from o3_lightning.common.errors import InputError
from o3_lightning.detector.base import DETECTORS
from o3_lightning.detector.boundary import fit_one_class, warn_if_small
from o3_lightning.detector.config import DetectorConfig
from o3_lightning.detector.encoder import Encoder
from o3_lightning.detector.feature_evidence import Details, FeatureEvidence
from o3_lightning.detector.official import empirical_precision, precision_root
from o3_lightning.detector.prompt_features import PromptInputs

KEPT = 0.05  # quantile of the scores of the forget prompts from which the weight is 1
DIRECTIONS = 1000  # as in the published code


class ThresholdedEvidence(FeatureEvidence):
    """Evidence whose state has a `threshold` [1]."""

    def explain_features(self, inputs: PromptInputs, information: Tensor) -> list[Details]:
        """Returns no more than the texts' places."""
        return [[{"channels": {}, "layers": []} for _ in inputs.tokens]]

    def weight(self, scores: Tensor) -> Tensor:
        """Returns 1 from the threshold on, else 0."""
        return (scores >= self.state.threshold.to(scores)).float()


@dataclass(frozen=True)
class DistanceState:
    """Layer statistics and boundary of one request, float64.

    Args:
        mean: [L, D].
        root: of the precision [L, D, D].
        slope: of the one-class SVM [L].
        threshold: [1].
    """

    mean: Tensor
    root: Tensor
    slope: Tensor
    threshold: Tensor


@DETECTORS.register("mdf")
class DistanceFeatures(ThresholdedEvidence):
    """A linear one-class SVM on the squared Mahalanobis distances of all layers but the embeddings.

    Source:
        Xu et al. 2021, "Unsupervised out-of-domain detection via pre-trained transformers" (arXiv
        2106.00948). Their code takes the better of both signs and the best of eight `nu` by the result; here
        a farther text scores lower and `nu` is the detector's. With M <= D the covariance is singular: its
        pseudo-inverse ignores deviations outside the span of the forget prompts, as theirs does.
    """

    state_class = DistanceState

    @classmethod
    def fit_state(
        cls, encoder: Encoder, inputs: PromptInputs, config: DetectorConfig, seed: int
    ) -> tuple[DistanceState, dict[str, Any], list[str]]:
        """Fits mean, precision and boundary to the forget prompts."""
        rows = inputs.features[:, 1:].double()
        mean, root = rows.mean(dim=0), precision_root(empirical_precision(rows))
        distances = squared_distances(rows, mean, root)
        slope = fit_one_class(distances, nu=config.nu)
        threshold = -(distances @ slope).quantile(1 - KEPT).float()
        return DistanceState(mean, root, slope, threshold[None]), {}, warn_if_small(inputs)

    def score_features(self, inputs: PromptInputs, information: Tensor) -> Tensor:
        """Returns minus the boundary's sum of distances [N, 1]."""
        rows = inputs.features[:, 1:].double()
        distances = squared_distances(rows, self.state.mean, self.state.root)
        return -(distances @ self.state.slope)[:, None].float()


def squared_distances(features: Tensor, mean: Tensor, root: Tensor) -> Tensor:
    """Returns the squared Mahalanobis distances [N, L] of features [N, L, D]."""
    return torch.einsum("nld,lrd->nlr", features - mean, root).square().sum(dim=-1)


@dataclass(frozen=True)
class DepthState:
    """The forget prompts and the order of their layer scores in many directions.

    Args:
        bank: unit rows [L, M, D]; each tells much of its prompt.
        directions: unit rows [P, L].
        projections: of the forget prompts' layer scores, ascending [P, M].
        threshold: [1].
    """

    bank: Tensor
    directions: Tensor
    projections: Tensor
    threshold: Tensor


@DETECTORS.register("agg")
class AggregatedDepth(ThresholdedEvidence):
    """The integrated rank-weighted depth of a text's largest cosines, one a layer, among the forget prompts'.

    Source:
        Darrin et al. 2024, "Unsupervised layer-wise score aggregation for textual OOD detection" (arXiv
        2302.09852), cosine with the depth, their best. A forget prompt is compared with the others, not with
        itself, where its cosine would be 1. A text that is closer than the forget prompts are to each other
        is as shallow as one that is farther: the depth has no direction.
    """

    state_class = DepthState

    @classmethod
    def fit_state(
        cls, encoder: Encoder, inputs: PromptInputs, config: DetectorConfig, seed: int
    ) -> tuple[DepthState, dict[str, Any], list[str]]:
        """Keeps the forget prompts and orders their scores.

        Raises:
            InputError: there are fewer than two forget prompts.
        """
        if len(inputs) < 2:
            raise InputError(f"'agg' needs at least two different forget prompts, got {len(inputs)}")
        bank = normalize(inputs.features.float(), dim=-1).transpose(0, 1).contiguous()
        cosines = bank @ bank.mT
        cosines.diagonal(dim1=1, dim2=2).fill_(-1)
        vectors = cosines.amax(dim=2).T
        generator = torch.Generator().manual_seed(seed)
        directions = normalize(torch.randn(DIRECTIONS, len(bank), generator=generator), dim=1)
        projections = (directions @ vectors.T).sort(dim=1).values
        depths = rank_weighted_depth(vectors, directions, projections)
        threshold = depths.quantile(KEPT).float()
        return DepthState(bank, directions, projections, threshold[None]), {}, warn_if_small(inputs)

    def score_features(self, inputs: PromptInputs, information: Tensor) -> Tensor:
        """Returns the depths [N, 1], in [0, .5]."""
        bank, directions, projections, _ = vars(self.state).values()
        vectors = (normalize(inputs.features.float(), dim=-1).transpose(0, 1) @ bank.mT).amax(dim=2).T
        return rank_weighted_depth(vectors, directions, projections)[:, None]


def rank_weighted_depth(vectors: Tensor, directions: Tensor, projections: Tensor) -> Tensor:
    """Returns the mean over directions of the smaller share of references on either side [N], in [0, .5].

    Args:
        vectors: [N, L].
        directions: [P, L].
        projections: of the references, ascending [P, M].

    Source:
        Ramsay et al. 2019, integrated rank-weighted depth, Monte Carlo over directions.
    """
    own = directions @ vectors.T
    below = torch.searchsorted(projections, own.contiguous(), right=True) / projections.shape[1]
    return torch.minimum(below, 1 - below).mean(dim=0)
