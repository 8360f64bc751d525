"""The searchers of the bandit, which choose the next arm from the rewards so far, and their reward network.

Shapes: N arms in the pool, K candidates, D features of a context, H hidden units, W weights of the network.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap

from o3_lightning.reveal.config import SearchConfig

SMALLEST_SPREAD = 1e-6  # standard deviation below which rewards count as equal
START = -1  # seed offset of the initial weights of the network, which are the same for every query


class RewardNetwork:
    """Predicts the reward of an arm from its context.

    Source:
        INSTINCT: D -> 100 -> 1 with ReLU, trained on raw scores from N(0, 1) weights; here rewards are
        standardised, so that exploration does not depend on their unit.
    """

    def __init__(self, features: int, config: SearchConfig, generator: torch.Generator) -> None:
        self.config = config
        blank: Any = torch.nn.utils.skip_init  # does not use the global generator
        layers = blank(torch.nn.Linear, features, config.hidden), blank(torch.nn.Linear, config.hidden, 1)
        self.module = torch.nn.Sequential(layers[0], torch.nn.ReLU(), layers[1])
        with torch.no_grad():
            for layer in layers:
                std = config.init_std or layer.in_features**-0.5
                layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) * std)
                layer.bias.zero_()

    @property
    def weights(self) -> int:
        """The number of weights W."""
        return sum(parameter.numel() for parameter in self.module.parameters())

    def fit(self, contexts: Tensor, rewards: Tensor) -> None:
        """Trains on contexts [N, D] and rewards [N], standardised, by mean squared error in full batches."""
        config, spread = self.config, rewards.std(unbiased=False)
        centred = rewards - rewards.mean()
        target = centred / spread if spread > SMALLEST_SPREAD else torch.zeros_like(rewards)
        optimizer = torch.optim.Adam(
            self.module.parameters(),
            lr=config.learning_rate,
            weight_decay=config.regularisation / len(rewards),
            fused=True,
        )
        for _ in range(config.steps):
            optimizer.zero_grad(set_to_none=True)
            (self.module(contexts).squeeze(-1) - target).square().mean().backward()
            optimizer.step()

    @torch.no_grad()
    def predict(self, contexts: Tensor) -> Tensor:
        """Returns the predicted standardised rewards [N] of contexts [N, D]."""
        predicted: Tensor = self.module(contexts).squeeze(-1)
        return predicted

    @torch.no_grad()
    def gradient_products(self, left: Tensor, right: Tensor) -> Tensor:
        """Returns the inner products [N, M] of the gradients of the predictions for contexts [N, D], [M, D].

        For one hidden layer with ReLU, units h(x) and their slopes s(x), the product is
        (x.x' + 1) (s.s') + h.h' + 1, which takes D + H multiplications per pair instead of W.
        """
        (units, slopes), (others, other_slopes) = self.units(left), self.units(right)
        products: Tensor = (left @ right.T + 1) * (slopes @ other_slopes.T) + units @ others.T + 1
        return products

    @torch.no_grad()
    def squared_norms(self, contexts: Tensor) -> Tensor:
        """Returns the squared norms [N] of the gradients of the predictions of contexts [N, D]."""
        units, slopes = self.units(contexts)
        lengths = [part.square().sum(1) for part in (contexts, slopes, units)]
        return (lengths[0] + 1) * lengths[1] + lengths[2] + 1

    def units(self, contexts: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the hidden units [N, H] and the derivatives [N, H] of the prediction by their inputs."""
        hidden: Any = self.module[0]
        last: Any = self.module[2]
        inputs: Tensor = hidden(contexts)
        return inputs.relu(), (inputs > 0) * last.weight[0]

    def squared_gradients(self, contexts: Tensor) -> Iterator[Tensor]:
        """Yields the squared gradients [chunk, W] of the predictions, chunk by chunk."""
        parameters = {name: value.detach() for name, value in self.module.named_parameters()}

        def predict(values: dict[str, Tensor], context: Tensor) -> Tensor:
            output: Tensor = functional_call(self.module, values, (context,))
            return output.squeeze(-1)

        per_arm = vmap(grad(predict), in_dims=(None, 0))
        for part in torch.split(contexts, self.config.chunk):
            gradients = per_arm(parameters, part)
            yield torch.cat([value.flatten(1) for value in gradients.values()], dim=1).square()


@dataclass(frozen=True)
class Choice:
    """A chosen arm; the fields are those of `search.Query`."""

    arm: int
    prediction: float | None = None
    bonus: float | None = None


class Searcher(ABC):
    """Chooses arms from contexts [N, D], standardised.

    Choices depend only on the seed, the number of the query and the history.
    """

    def __init__(self, contexts: Tensor, config: SearchConfig, seed: int) -> None:
        self.contexts, self.config, self.seed = contexts, config, seed

    def generator(self, query: int) -> torch.Generator:
        """Returns the random generator of a query."""
        return torch.Generator().manual_seed(self.seed * 1_000_003 + query + 1)

    def restart(self, arms: Sequence[int], rewards: Sequence[float]) -> None:  # noqa: B027  # optional
        """Starts an outer round from the best arms so far."""

    @abstractmethod
    def choose(
        self, query: int, candidates: Sequence[int], arms: Sequence[int], rewards: Sequence[float]
    ) -> Choice:
        """Returns the next arm, of at least one candidate, from the arms queried so far and their rewards."""


class RandomSearcher(Searcher):
    """Chooses uniformly at random."""

    def choose(
        self, query: int, candidates: Sequence[int], arms: Sequence[int], rewards: Sequence[float]
    ) -> Choice:
        """Returns a random candidate."""
        place = int(torch.randint(len(candidates), (1,), generator=self.generator(query)))
        return Choice(candidates[place])


class GreedySearcher(Searcher):
    """Chooses the arm with the highest predicted reward."""

    def choose(
        self, query: int, candidates: Sequence[int], arms: Sequence[int], rewards: Sequence[float]
    ) -> Choice:
        """Returns the best candidate according to a network trained on the history."""
        network = RewardNetwork(self.contexts.shape[1], self.config, self.generator(START))
        network.fit(self.contexts[list(arms)], torch.tensor(rewards, dtype=torch.float32))
        prediction = network.predict(self.contexts[list(candidates)])
        bonus = self.bonus(network, candidates)
        place = int(self.value(prediction, bonus, self.generator(query)).argmax())
        self.chosen(network, candidates[place])
        return Choice(
            candidates[place], float(prediction[place]), None if bonus is None else float(bonus[place])
        )

    def bonus(self, network: RewardNetwork, candidates: Sequence[int]) -> Tensor | None:
        """Returns the exploration bonus of each candidate [K], or None."""
        return None

    def value(self, prediction: Tensor, bonus: Tensor | None, generator: torch.Generator) -> Tensor:
        """Returns the criterion by which candidates are chosen, [K]."""
        return prediction

    def chosen(self, network: RewardNetwork, arm: int) -> None:
        """Records a choice."""


class NeuralUcbSearcher(GreedySearcher):
    """Chooses the arm with the highest prediction plus exploration bonus.

    Source:
        NeuralUCB (Zhou et al. 2020): the bonus is sqrt(lambda nu g' Z^-1 g / D), where g is the gradient of
        the prediction and Z = lambda I + the sum of g g' over all arms queried so far; the division by D is
        ours, because gradients grow with it. Z is full, as in the paper, or diagonal, as in INSTINCT and in
        the code of the paper. Every training starts from the same weights, as in NeuralUCB: otherwise the
        gradients of different queries would not be comparable.
    """

    def __init__(self, contexts: Tensor, config: SearchConfig, seed: int) -> None:
        super().__init__(contexts, config, seed)
        self.explored: list[int] = []
        self.diagonal: Tensor | None = None

    def restart(self, arms: Sequence[int], rewards: Sequence[float]) -> None:
        """Resets the explored arms to the given ones."""
        self.explored, self.diagonal = list(arms), None

    def bonus(self, network: RewardNetwork, candidates: Sequence[int]) -> Tensor:
        """Returns sqrt(lambda nu g' Z^-1 g / D) of each candidate, [K]."""
        uncertainty = self.full if self.config.covariance == "full" else self.of_diagonal
        spread = uncertainty(network, self.contexts[list(candidates)])
        return (self.config.exploration / self.contexts.shape[1] * spread).sqrt()

    def full(self, network: RewardNetwork, contexts: Tensor) -> Tensor:
        """Returns lambda g' Z^-1 g of contexts [K, D], with all gradients at the current weights.

        By Woodbury's identity it is g'g - k' (lambda I + K)^-1 k, with the inner products K of the gradients
        of the explored arms and k between them and g: a system of the size of the queries, not the weights.
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
        """Returns lambda g' Z^-1 g of contexts [K, D], with the diagonal of Z accumulated over queries."""
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
        """Adds an arm to the explored ones."""
        self.explored.append(arm)
        if self.diagonal is not None:
            self.diagonal += next(network.squared_gradients(self.contexts[[arm]]))[0]


class ThompsonSearcher(NeuralUcbSearcher):
    """Chooses the arm with the highest sample from N(prediction, bonus^2).

    Source:
        Neural Thompson sampling (Zhang et al. 2021), with the same Z.
    """

    def value(self, prediction: Tensor, bonus: Tensor | None, generator: torch.Generator) -> Tensor:
        """Returns a sample for each candidate."""
        assert bonus is not None
        return prediction + bonus * torch.randn(prediction.shape, generator=generator)


SEARCHERS: dict[str, type[Searcher]] = {
    "random": RandomSearcher,
    "greedy": GreedySearcher,
    "neural_ucb": NeuralUcbSearcher,
    "thompson": ThompsonSearcher,
}
