"""A bandit whose best arm is known: it tells searchers apart by their regret.

Shapes: N arms, D features of a context.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from scipy.stats import ttest_1samp, ttest_rel
from torch import Tensor

from o3_lightning.reveal.config import SEARCHERS, SearchConfig
from o3_lightning.reveal.search import Query, run_search, standardise

__all__ = ["SyntheticBandit", "compare_searchers", "make_bandit", "mean_regret", "paired_differences"]

SHAPES = ("cosine", "quadratic", "peaks")


@dataclass(frozen=True)
class SyntheticBandit:
    """Arms with known mean rewards.

    Args:
        contexts: [N, D], standardised.
        means: [N], in [0, 1]; the best arm's is 1.
        noise: standard deviation of a reward around its mean.
    """

    contexts: Tensor
    means: Tensor
    noise: float


def make_bandit(
    seed: int, shape: str = "cosine", *, arms: int = 1000, features: int = 16, noise: float = 0.1
) -> SyntheticBandit:
    """Returns a bandit of a seed.

    Args:
        seed: draws arms and the hidden direction.
        shape: reward over the unit sphere: "cosine" cos(3 x.a) and "quadratic" 10 (x.a)^2 as in NeuralUCB,
            "peaks" four bumps of different height, so that a searcher that is content too early misses
            the highest.
        arms: N.
        features: D.
        noise: of a reward.

    Source:
        Zhou et al. 2020, "Neural Contextual Bandits with UCB-based Exploration", section 7.1; a fixed pool
        of arms instead of new contexts each round, means scaled to [0, 1].
    """
    generator = torch.Generator().manual_seed(seed)
    contexts = torch.randn(arms, features, generator=generator)
    contexts /= contexts.norm(dim=1, keepdim=True)
    if shape == "peaks":
        centres = contexts[torch.randperm(arms, generator=generator)[:4]]
        heights = torch.tensor([1.0, 0.8, 0.65, 0.5])
        means = (heights * torch.exp(4 * (contexts @ centres.T - 1))).max(dim=1).values
    else:
        hidden = torch.randn(features, generator=generator)
        inner = contexts @ (hidden / hidden.norm())
        means = (3 * inner).cos() if shape == "cosine" else 10 * inner.square()
    means = (means - means.min()) / (means.max() - means.min())
    return SyntheticBandit(standardise(contexts), means, noise)


def mean_regret(bandit: SyntheticBandit, config: SearchConfig, seed: int) -> float:
    """Returns the mean over all queries of how far the chosen arm's mean reward lies below the best arm's."""
    noise = torch.Generator().manual_seed(seed + 1)

    def ask(query: Query) -> float:
        drawn = float(torch.randn((), generator=noise)) * bandit.noise
        return float(bandit.means[query.arm]) + drawn

    arms = run_search(bandit.contexts, ask, config, seed)
    return 1.0 - float(bandit.means[arms].mean())


def compare_searchers(
    shape: str,
    seeds: Sequence[int],
    config: SearchConfig,
    searchers: Sequence[str] = SEARCHERS,
    *,
    arms: int = 500,
    features: int = 8,
) -> dict[str, dict[str, float | list[float]]]:
    """Returns the mean regret of each searcher over the seeds, with a 95 % interval (Student's t).

    Args:
        shape: of the reward, see `make_bandit`.
        seeds: each draws a bandit and a search; at least two.
        config: budget and network; its searcher is replaced.
        searchers: which ones.
        arms: of each bandit.
        features: of each arm.
    """
    table: dict[str, dict[str, float | list[float]]] = {}
    for name in searchers:
        chosen = replace(config, searcher=name)
        bandits = [make_bandit(seed, shape, arms=arms, features=features) for seed in seeds]
        values = [mean_regret(bandit, chosen, seed) for bandit, seed in zip(bandits, seeds, strict=True)]
        interval = ttest_1samp(values, 0.0).confidence_interval(0.95)
        table[name] = {
            "mean": statistics.fmean(values),
            "low": float(interval.low),
            "high": float(interval.high),
            "values": values,
        }
    return table


def paired_differences(ours: Sequence[float], theirs: Sequence[float]) -> dict[str, float]:
    """Returns by how much a searcher's regret lies below another's on the same bandits.

    Args:
        ours: regrets, one a bandit; at least two.
        theirs: of the other searcher, in the same order.

    Returns:
        `mean` of theirs - ours, `low` and `high` of its 95 % interval (Student's t), and `better`, the share
        of bandits on which ours is smaller.
    """
    interval = ttest_rel(theirs, ours).confidence_interval(0.95)
    pairs = list(zip(ours, theirs, strict=True))
    return {
        "mean": statistics.fmean(their - our for our, their in pairs),
        "low": float(interval.low),
        "high": float(interval.high),
        "better": sum(our < their for our, their in pairs) / len(pairs),
    }
