"""The reward network of the bandit: a small MLP, trained from its start each time, with gradients per arm.

Shapes: N arms, D features of a context, H hidden units, W weights in all.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.func import functional_call, grad, vmap

from o3_lightning.reveal.search_config import SearchConfig

__all__ = ["RewardNetwork"]

SMALLEST_SPREAD = 1e-6  # rewards closer than this count as equal


class RewardNetwork:
    """Predicts an arm's reward from its context.

    Args:
        features: D.
        config: width, training and initial weights.
        generator: draws the initial weights.

    Source:
        INSTINCT's network: D -> 100 -> 1 with ReLU. It trains on raw scores and starts at N(0, 1); here
        rewards are standardised, so that exploration does not depend on their unit.
    """

    def __init__(self, features: int, config: SearchConfig, generator: torch.Generator) -> None:
        self.config = config
        blank: Any = torch.nn.utils.skip_init  # leaves torch's own generator alone
        layers = (
            blank(torch.nn.Linear, features, config.hidden),
            blank(torch.nn.Linear, config.hidden, 1),
        )
        self.module = torch.nn.Sequential(layers[0], torch.nn.ReLU(), layers[1])
        with torch.no_grad():
            for layer in layers:
                std = config.init_std or layer.in_features**-0.5
                layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) * std)
                layer.bias.zero_()

    @property
    def weights(self) -> int:
        """W."""
        return sum(parameter.numel() for parameter in self.module.parameters())

    def fit(self, contexts: Tensor, rewards: Tensor) -> None:
        """Trains by mean squared error on standardised rewards, all arms in every step.

        Args:
            contexts: [N, D].
            rewards: [N], any unit; N >= 1.
        """
        config, spread = self.config, rewards.std(unbiased=False)
        target = (
            (rewards - rewards.mean()) / spread if spread > SMALLEST_SPREAD else torch.zeros_like(rewards)
        )
        optimizer = torch.optim.Adam(
            self.module.parameters(),
            lr=config.learning_rate,
            weight_decay=config.regularisation / len(rewards),
            fused=True,
        )
        for _ in range(config.steps):
            optimizer.zero_grad(set_to_none=True)
            loss = (self.module(contexts).squeeze(-1) - target).square().mean()
            loss.backward()
            optimizer.step()

    @torch.no_grad()
    def predict(self, contexts: Tensor) -> Tensor:
        """Returns predicted rewards [N], standardised, for contexts [N, D]."""
        predicted: Tensor = self.module(contexts).squeeze(-1)
        return predicted

    @torch.no_grad()
    def gradient_products(self, left: Tensor, right: Tensor) -> Tensor:
        """Returns the inner products of predictions' gradients by the weights, [N, M], without the gradients.

        Args:
            left: contexts [N, D].
            right: contexts [M, D].

        Source:
            Follows from one hidden layer with ReLU: with units h(x) and their slopes s(x), the product is
            (x.x' + 1) (s.s') + h.h' + 1. Costs D + H multiplications a pair in place of W.
        """
        (units, slopes), (others, other_slopes) = self.units(left), self.units(right)
        products: Tensor = (left @ right.T + 1) * (slopes @ other_slopes.T) + units @ others.T + 1
        return products

    @torch.no_grad()
    def squared_norms(self, contexts: Tensor) -> Tensor:
        """Returns the inner product of each prediction's gradient with itself, [N], for contexts [N, D]."""
        units, slopes = self.units(contexts)
        lengths = [part.square().sum(1) for part in (contexts, slopes, units)]
        return (lengths[0] + 1) * lengths[1] + lengths[2] + 1

    def units(self, contexts: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the hidden units [N, H] and the derivatives of the prediction by their inputs [N, H]."""
        hidden: Any = self.module[0]
        last: Any = self.module[2]
        inputs: Tensor = hidden(contexts)
        return inputs.relu(), (inputs > 0) * last.weight[0]

    def squared_gradients(self, contexts: Tensor) -> Iterator[Tensor]:
        """Yields the squared derivatives of each prediction by the weights, [chunk, W], chunk by chunk."""
        parameters = {name: value.detach() for name, value in self.module.named_parameters()}

        def predict(values: dict[str, Tensor], context: Tensor) -> Tensor:
            output: Tensor = functional_call(self.module, values, (context,))
            return output.squeeze(-1)

        per_arm = vmap(grad(predict), in_dims=(None, 0))
        for part in torch.split(contexts, self.config.chunk):
            gradients = per_arm(parameters, part)
            yield torch.cat([value.flatten(1) for value in gradients.values()], dim=1).square()
