"""From prompts to weights: every turn of the user is asked about, and the strongest counts.

Shapes: B rows, K requests, N distinct turns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from o3_lightning.common.errors import InputError
from o3_lightning.data.requests import check_characters

__all__ = ["Detectors", "EveryPrompt", "Prompt", "route_prompts", "user_texts", "user_turns"]

Prompt = str | Sequence[Mapping[str, str]]


class Detectors(Protocol):
    """What the gate asks of the detectors; `detector.multi.MultiDetector` is one."""

    @property
    def ids(self) -> Sequence[str]:
        """The requests, in the order of the weights' columns."""

    def weights(self, prompts: Sequence[Any]) -> Tensor:
        """Returns [N,K] in [0, 1]."""

    def explain(self, prompts: Sequence[Any]) -> list[dict[str, Any]]:
        """Returns what is behind the weights, one dictionary a prompt."""


@dataclass(frozen=True)
class EveryPrompt:
    """Stands in for detectors where there is no gate: every prompt has weight 1 for every request.

    Args:
        ids: the requests.
    """

    ids: Sequence[str]

    def weights(self, prompts: Sequence[Any]) -> Tensor:
        """Returns ones [N,K]."""
        return torch.ones(len(prompts), len(self.ids))

    def explain(self, prompts: Sequence[Any]) -> list[dict[str, Any]]:
        """Returns nothing to explain, once a prompt."""
        return [{} for _ in prompts]


def user_texts(prompt: Prompt) -> list[str]:
    """Returns what the user says in a prompt: the text itself, or every user message of a chat.

    Raises:
        InputError: neither a text nor messages with 'role' and 'content', no user message, one whose content
            is no text (the parts that some servers send have to be joined before), or half of a character.

    Example:
        >>> user_texts([{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Who?"}])
        ['Who?']
    """
    try:
        texts = (
            [prompt]
            if isinstance(prompt, str)
            else [message["content"] for message in prompt if message["role"] == "user"]
        )
    except (TypeError, KeyError) as error:
        raise InputError("expected a text or messages with 'role' and 'content'", field="prompts") from error
    if not texts:
        raise InputError("expected at least one message of the user", field="prompts")
    for text in texts:
        if not isinstance(text, str):
            raise InputError(f"expected 'content' to be a text, got {type(text).__name__}", field="prompts")
        check_characters(text, field="prompts")
    return texts


def user_turns(prompts: Sequence[Prompt]) -> list[list[str]]:
    """Returns what the user says in each prompt.

    Raises:
        InputError: one text in place of a list of prompts, whose letters would each be asked about; what can
            be read only once, and would be empty when it is to be answered; or as `user_texts`.
    """
    if isinstance(prompts, str):
        raise InputError("expected a list of prompts, got one text", field="prompts")
    if isinstance(prompts, Iterator):
        raise InputError(f"expected a list of prompts, got a {type(prompts).__name__}", field="prompts")
    return [user_texts(prompt) for prompt in prompts]


def route_prompts(detectors: Detectors, turns: Sequence[Sequence[str]], floor: float = 0.0) -> Tensor:
    """Returns the weight of every request on every row: the largest over the row's turns.

    Args:
        detectors: the detectors; each distinct turn is shown to them once.
        turns: the user's texts, row by row, at least one each.
        floor: smaller weights become 0.

    Returns:
        [B,K] float32 on the CPU, in [0, 1].
    """
    count = len(detectors.ids)
    distinct = {
        text: place for place, text in enumerate(dict.fromkeys(text for row in turns for text in row))
    }
    if not distinct or not count:
        return torch.zeros(len(turns), count)
    scored = detectors.weights(list(distinct)).detach().to("cpu", torch.float32)
    rows = torch.tensor([row for row, texts in enumerate(turns) for _ in texts])
    places = torch.tensor([distinct[text] for texts in turns for text in texts])
    spread = rows[:, None].expand(-1, count)
    largest = torch.zeros(len(turns), count).scatter_reduce(0, spread, scored[places], "amax")
    return torch.where(largest >= floor, largest, torch.zeros(()))
