"""The loop of the bandit: random arms first, then the choices of a searcher, in outer rounds.

Shapes: N arms, D features of a context.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from o3_lightning.reveal.config import SearchConfig
from o3_lightning.reveal.searchers import SEARCHERS, Choice

SMALLEST_SPREAD = 1e-6


@dataclass(frozen=True)
class Query:
    """A query of the search.

    Args:
        number: from 0.
        phase: "first" (drawn at random) or "search".
        round: outer round, from 0.
        arm: index in the pool.
        prediction: predicted reward in standard deviations of the rewards so far; None without a network.
        bonus: exploration bonus in the same unit; None without one.
    """

    number: int
    phase: str
    round: int
    arm: int
    prediction: float | None
    bonus: float | None


def run_search(contexts: Tensor, ask: Callable[[Query], float], config: SearchConfig, seed: int) -> list[int]:
    """Queries arms until the budget is spent; returns them, the same for given rewards, settings and seed.

    The search ends earlier if the pool is exhausted and arms must not be repeated.

    Args:
        contexts: [N, D], standardised; see `standardise`.
        ask: queries an arm and returns its reward; exceptions end the search.
        config: searcher and budget.
        seed: of all random draws.
    """
    searcher = SEARCHERS[config.searcher](contexts, config, seed)
    arms: list[int] = []
    rewards: list[float] = []
    first = min(config.first, config.queries)
    begins = round_starts(first, config.queries, config.rounds)
    for number in range(config.queries):
        candidates = draw_candidates(len(contexts), arms, config, seed, number)
        if not candidates:
            break
        if number in begins:
            kept = sorted(range(len(arms)), key=lambda place: -rewards[place])
            kept = kept[: config.warm] if begins.index(number) else kept
            searcher.restart([arms[place] for place in kept], [rewards[place] for place in kept])
        choice = (
            Choice(candidates[0]) if number < first else searcher.choose(number, candidates, arms, rewards)
        )
        phase = "first" if number < first else "search"
        turn = sum(number >= begin for begin in begins) - 1
        query = Query(number, phase, max(0, turn), choice.arm, choice.prediction, choice.bonus)
        rewards.append(ask(query))
        arms.append(choice.arm)
    return arms


def round_starts(first: int, queries: int, rounds: int) -> list[int]:
    """Returns the number of the first query of each outer round.

    Example:
        >>> round_starts(first=10, queries=110, rounds=4)
        [10, 35, 60, 85]
    """
    return [first + (queries - first) * place // rounds for place in range(rounds)]


def draw_candidates(
    pool: int, asked: Sequence[int], config: SearchConfig, seed: int, number: int
) -> list[int]:
    """Returns the candidates of a query, in an order that depends on the seed and its number."""
    generator = torch.Generator().manual_seed(seed * 1_000_033 + number)
    order = torch.randperm(pool, generator=generator).tolist()
    if not config.repeat:
        used = set(asked)
        order = [arm for arm in order if arm not in used]
    return order[: config.candidates] if config.candidates else order


def standardise(contexts: Tensor) -> Tensor:
    """Returns contexts [N, D] with mean 0 and standard deviation 1 over the arms; constant features are 0."""
    centred = contexts.float() - contexts.float().mean(0)
    spread = centred.std(0, unbiased=False)
    return torch.where(spread > SMALLEST_SPREAD, centred / spread.clamp(min=SMALLEST_SPREAD), centred * 0)
