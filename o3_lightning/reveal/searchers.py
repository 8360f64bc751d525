"""The searchers: which arm to ask next, given what the arms asked so far were worth.

Shapes: N arms in the pool, K candidates, D features of a context, W weights of the reward network.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from o3_lightning.reveal.network import RewardNetwork
from o3_lightning.reveal.search_config import SearchConfig

__all__ = ["Choice", "Searcher", "build_searcher"]


@dataclass(frozen=True)
class Choice:
    """An arm and why it was chosen.

    Args:
        arm: its place in the pool.
        prediction: predicted reward in standard deviations of the rewards so far; None without a network.
        bonus: exploration bonus in the same unit; None where none is computed.
    """

    arm: int
    prediction: float | None = None
    bonus: float | None = None


class Searcher(ABC):
    """Chooses arms.

    Args:
        contexts: [N, D], standardised.
        config: network and exploration.
        seed: of all that is drawn; a choice depends on it, on the query's number and on the history alone.
    """

    def __init__(self, contexts: Tensor, config: SearchConfig, seed: int) -> None:
        self.contexts, self.config, self.seed = contexts, config, seed

    def generator(self, query: int) -> torch.Generator:
        """Returns the source of randomness of one query."""
        return torch.Generator().manual_seed(self.seed * 1_000_003 + query + 1)

    def restart(self, arms: Sequence[int], rewards: Sequence[float]) -> None:  # noqa: B027  # optional
        """Begins an outer round from some arms that were worth most."""

    @abstractmethod
    def choose(
        self, query: int, candidates: Sequence[int], arms: Sequence[int], rewards: Sequence[float]
    ) -> Choice:
        """Returns the next arm.

        Args:
            query: its number, from 0.
            candidates: arms that may be asked; at least one.
            arms: arms asked so far.
            rewards: of these.
        """


class RandomSearcher(Searcher):
    """Draws evenly."""

    def choose(
        self, query: int, candidates: Sequence[int], arms: Sequence[int], rewards: Sequence[float]
    ) -> Choice:
        """Returns any candidate."""
        place = int(torch.randint(len(candidates), (1,), generator=self.generator(query)))
        return Choice(candidates[place])


START = -1  # the number under which the network's first weights are drawn, the same for every query


class GreedySearcher(Searcher):
    """Takes the arm whose predicted reward is highest."""

    def choose(
        self, query: int, candidates: Sequence[int], arms: Sequence[int], rewards: Sequence[float]
    ) -> Choice:
        """Returns the candidate that the network, trained from its start on the history, likes best."""
        network = RewardNetwork(self.contexts.shape[1], self.config, self.generator(START))
        network.fit(self.contexts[list(arms)], torch.tensor(rewards, dtype=torch.float32))
        prediction = network.predict(self.contexts[list(candidates)])
        bonus = self.bonus(network, candidates)
        place = int(self.value(prediction, bonus, self.generator(query)).argmax())
        self.chosen(network, candidates[place])
        noted = None if bonus is None else float(bonus[place])
        return Choice(candidates[place], float(prediction[place]), noted)

    def bonus(self, network: RewardNetwork, candidates: Sequence[int]) -> Tensor | None:
        """Returns the exploration bonus of each candidate [K], or None."""
        return None

    def value(self, prediction: Tensor, bonus: Tensor | None, generator: torch.Generator) -> Tensor:
        """Returns what each candidate is worth, [K]."""
        return prediction

    def chosen(self, network: RewardNetwork, arm: int) -> None:
        """Takes note of a choice."""


class NeuralUcbSearcher(GreedySearcher):
    """Takes the arm whose prediction plus exploration bonus is highest.

    Source:
        NeuralUCB (Zhou et al. 2020): the bonus is sqrt(lambda nu g' Z^-1 g / D), where g is the gradient of
        the prediction by the weights and Z = lambda I + the sum of g g' over the arms asked, random ones
        included; divided by the features D because gradients grow with them. Z is whole, as in the paper, or
        its diagonal alone, as in INSTINCT and in the paper's own code.
        Every training starts from the same weights, as in NeuralUCB: from others, gradients of different
        queries would not belong together, and Z would say nothing about where was looked.
    """

    def __init__(self, contexts: Tensor, config: SearchConfig, seed: int) -> None:
        super().__init__(contexts, config, seed)
        self.explored: list[int] = []
        self.diagonal: Tensor | None = None

    def restart(self, arms: Sequence[int], rewards: Sequence[float]) -> None:
        """Forgets what was explored, but for the given arms."""
        self.explored, self.diagonal = list(arms), None

    def bonus(self, network: RewardNetwork, candidates: Sequence[int]) -> Tensor:
        """Returns sqrt(lambda nu g' Z^-1 g / D) of each candidate, [K]."""
        find = self.whole if self.config.covariance == "full" else self.of_diagonal
        spread = find(network, self.contexts[list(candidates)])
        return (self.config.exploration / self.contexts.shape[1] * spread).sqrt()

    def whole(self, network: RewardNetwork, contexts: Tensor) -> Tensor:
        """Returns lambda g' Z^-1 g of contexts [K, D], all gradients taken at the present weights.

        By Woodbury's identity it is g'g - k' (lambda I + K)^-1 k, with the inner products K among the
        explored arms' gradients and k between them and g: a system as large as the queries, not the weights.
        """
        own = network.squared_norms(contexts).double()
        if not self.explored:
            return own.float()
        explored = self.contexts[self.explored]
        among = network.gradient_products(explored, explored).double()
        among += self.config.regularisation * torch.eye(len(explored), dtype=torch.float64)
        between = network.gradient_products(explored, contexts).double()
        known: Tensor = (between * torch.linalg.solve(among, between)).sum(0)
        return (own - known).clamp(min=0).float()

    def of_diagonal(self, network: RewardNetwork, contexts: Tensor) -> Tensor:
        """Returns lambda g' Z^-1 g of contexts [K, D] with Z's diagonal, as it grew query by query."""
        if self.diagonal is None:
            self.diagonal = torch.full((network.weights,), self.config.regularisation)
            if self.explored:
                for squared in network.squared_gradients(self.contexts[self.explored]):
                    self.diagonal += squared.sum(0)
        weighted: Tensor = self.config.regularisation / self.diagonal
        return torch.cat([squared @ weighted for squared in network.squared_gradients(contexts)])

    def value(self, prediction: Tensor, bonus: Tensor | None, generator: torch.Generator) -> Tensor:
        """Returns prediction plus bonus."""
        assert bonus is not None
        return prediction + bonus

    def chosen(self, network: RewardNetwork, arm: int) -> None:
        """Counts an arm as explored."""
        self.explored.append(arm)
        if self.diagonal is not None:
            self.diagonal += next(network.squared_gradients(self.contexts[[arm]]))[0]


class ThompsonSearcher(NeuralUcbSearcher):
    """Takes the arm whose draw from N(prediction, bonus^2) is highest.

    Source:
        Neural Thompson sampling (Zhang et al. 2021), with the same Z.
    """

    def value(self, prediction: Tensor, bonus: Tensor | None, generator: torch.Generator) -> Tensor:
        """Returns a draw for each candidate."""
        assert bonus is not None
        return prediction + bonus * torch.randn(prediction.shape, generator=generator)


KINDS: dict[str, type[Searcher]] = {
    "random": RandomSearcher,
    "greedy": GreedySearcher,
    "neural_ucb": NeuralUcbSearcher,
    "thompson": ThompsonSearcher,
}


def build_searcher(contexts: Tensor, config: SearchConfig, seed: int) -> Searcher:
    """Returns the searcher that a configuration names."""
    return KINDS[config.searcher](contexts, config, seed)
