"""What an objective sees: logits and labels of one or several views of the same rows, and what it asks for.

Shapes: B rows, T tokens, D width, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor

from o3_lightning.common.errors import InputError

__all__ = ["ANSWER", "REFUSAL", "RETAIN", "RETAIN_REFUSAL", "WRONG", "Objective", "Settings", "View"]

ANSWER = "answer"  # forget prompts with their true answers
REFUSAL = "refusal"  # forget prompts with refusals
WRONG = "wrong"  # forget prompts with wrong answers
RETAIN = "retain"  # retained prompts with their true answers
RETAIN_REFUSAL = "retain_refusal"  # retained prompts with refusals


@dataclass(frozen=True)
class View:
    """One view of a batch as the model sees it.

    Args:
        logits: [B, T, V] floating point.
        labels: [B, T] int64, -100 where nothing is to be learnt or unlearnt (prompt, padding).
        reference_logits: [B, T, V] of the model before unlearning, or None.
        hidden: [B, T, D] states of one layer, or None.
        reference_hidden: [B, T, D] of the same layer before unlearning, or None.
    """

    logits: Tensor
    labels: Tensor
    reference_logits: Tensor | None = None
    hidden: Tensor | None = None
    reference_hidden: Tensor | None = None

    def need(self, name: str) -> Tensor:
        """Returns an optional part of the view.

        Raises:
            InputError: the view was made without it.
        """
        part: Tensor | None = getattr(self, name)
        if part is None:
            raise InputError(f"the objective needs {name.replace('_', ' ')}, none were given")
        return part


@dataclass(frozen=True)
class Settings:
    """The numbers of an objective; each reads those it knows.

    Args:
        beta: temperature or exponent of the method.
        second_beta: second exponent (SatImp).
        delta: margin (SimNPO).
        direction: of the divergence from the uniform distribution (ME): "uniform_to_model" or
            "model_to_uniform".
        steering: length of the target vector (RMU).
        every_token: whether a divergence on retained data counts prompt and padding too.
        seed: of whatever the objective draws.
    """

    beta: float = 1.0
    second_beta: float = 1.0
    delta: float = 0.0
    direction: str = "uniform_to_model"
    steering: float = 2.0
    every_token: bool = False
    seed: int = 0


@dataclass(frozen=True)
class Objective:
    """A loss and what it asks for.

    Args:
        name: how a configuration calls it.
        compute: views by name and settings to a scalar that training makes smaller.
        views: the views it reads.
        reference: those of which it needs the logits (and hidden states) before unlearning.
        hidden: whether it needs hidden states of its views.
        beta: published default, where the method has one.
        second_beta: the same for the second exponent.
    """

    name: str
    compute: Callable[[Mapping[str, View], Settings], Tensor]
    views: tuple[str, ...]
    reference: tuple[str, ...] = ()
    hidden: bool = False
    beta: float = 1.0
    second_beta: float = 1.0

    def __call__(self, views: Mapping[str, View], settings: Settings) -> Tensor:
        """Returns the loss.

        Raises:
            InputError: a view, or a part of one, is missing.
        """
        missing = [name for name in self.views if name not in views]
        if missing:
            raise InputError(f"objective '{self.name}' needs the view '{missing[0]}', none was given")
        return self.compute(views, settings)
