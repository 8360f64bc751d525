"""The loop of the bandit: random arms first, then a searcher's choices, in outer rounds under one budget.

Shapes: N arms, D features of a context.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from o3_lightning.reveal.search_config import SearchConfig
from o3_lightning.reveal.searchers import Choice, build_searcher

__all__ = ["Query", "Trace", "run_search", "standardise"]

SMALLEST_SPREAD = 1e-6


@dataclass(frozen=True)
class Query:
    """One question of the search.

    Args:
        number: from 0.
        phase: "first" (drawn at random before anything is known) or "search".
        round: the outer round, from 0.
        choice: the arm, and why.
    """

    number: int
    phase: str
    round: int
    choice: Choice


@dataclass(frozen=True)
class Trace:
    """What a search asked and got: arms and their rewards in the order asked."""

    arms: tuple[int, ...]
    rewards: tuple[float, ...]


def run_search(contexts: Tensor, ask: Callable[[Query], float], config: SearchConfig, seed: int) -> Trace:
    """Asks arms under the budget and returns what was asked.

    The same contexts, answers, configuration and seed give the same queries.

    Args:
        contexts: [N, D], standardised; see `standardise`.
        ask: asks an arm and returns its reward. What it raises ends the search; what it noted stays.
        config: searcher and budget.
        seed: of all that is drawn.

    Returns:
        At most `queries` arms; fewer where each of the N arms was asked and none may be asked again.
    """
    searcher = build_searcher(contexts, config, seed)
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
        rewards.append(ask(Query(number, phase, max(0, turn), choice)))
        arms.append(choice.arm)
    return Trace(tuple(arms), tuple(rewards))


def round_starts(first: int, queries: int, rounds: int) -> list[int]:
    """Returns the number of the query with which each outer round begins.

    Example:
        >>> round_starts(first=10, queries=110, rounds=4)
        [10, 35, 60, 85]
    """
    return [first + (queries - first) * place // rounds for place in range(rounds)]


def draw_candidates(
    pool: int, asked: Sequence[int], config: SearchConfig, seed: int, number: int
) -> list[int]:
    """Returns the arms among which a query chooses, in an order that the seed and its number decide."""
    generator = torch.Generator().manual_seed(seed * 1_000_033 + number)
    order = torch.randperm(pool, generator=generator).tolist()
    if not config.repeat:
        used = set(asked)
        order = [arm for arm in order if arm not in used]
    return order[: config.candidates] if config.candidates else order


def standardise(contexts: Tensor) -> Tensor:
    """Returns contexts [N, D] with mean 0 and deviation 1 over the arms; constant features become 0."""
    centred = contexts.float() - contexts.float().mean(0)
    spread = centred.std(0, unbiased=False)
    return torch.where(spread > SMALLEST_SPREAD, centred / spread.clamp(min=SMALLEST_SPREAD), centred * 0)
