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
        NeuralUCB (Zhou et al. 2020) with INSTINCT's diagonal: U starts at lambda and grows by the squared
        gradient g^2 of each arm asked, random ones included; the bonus is sqrt(sum of lambda nu g^2 / U / D),
        divided by the features D because squared gradients grow with them.
        Every training starts from the same weights, as in NeuralUCB: from others, gradients of different
        queries would not belong together, and U would say nothing about where was looked.
    """

    def __init__(self, contexts: Tensor, config: SearchConfig, seed: int) -> None:
        super().__init__(contexts, config, seed)
        self.diagonal: Tensor | None = None
        self.warm: list[int] = []

    def restart(self, arms: Sequence[int], rewards: Sequence[float]) -> None:
        """Puts U back to lambda; the next network counts the given arms as explored."""
        self.diagonal, self.warm = None, list(arms)

    def bonus(self, network: RewardNetwork, candidates: Sequence[int]) -> Tensor:
        """Returns sqrt(sum of lambda nu g^2 / U / D) of each candidate, [K]."""
        config = self.config
        if self.diagonal is None:
            self.diagonal = torch.full((network.weights,), config.regularisation)
            if self.warm:
                for squared in network.squared_gradients(self.contexts[self.warm]):
                    self.diagonal += squared.sum(0)
        scale = config.regularisation * config.exploration / self.contexts.shape[1]
        parts = [
            (squared @ (scale / self.diagonal)).sqrt()
            for squared in network.squared_gradients(self.contexts[list(candidates)])
        ]
        return torch.cat(parts)

    def value(self, prediction: Tensor, bonus: Tensor | None, generator: torch.Generator) -> Tensor:
        """Returns prediction plus bonus."""
        assert bonus is not None
        return prediction + bonus

    def chosen(self, network: RewardNetwork, arm: int) -> None:
        """Counts an arm as explored."""
        assert self.diagonal is not None
        self.diagonal += next(network.squared_gradients(self.contexts[[arm]]))[0]


class ThompsonSearcher(NeuralUcbSearcher):
    """Takes the arm whose draw from N(prediction, bonus^2) is highest.

    Source:
        Neural Thompson sampling (Zhang et al. 2021), with the same diagonal U.
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
