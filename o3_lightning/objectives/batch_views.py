"""What an objective declares, and the views of a batch (logits, labels, reference) that it reads.

Shapes: B rows, T tokens, D width, V vocabulary.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING

from o3_lightning.common.checks import check_among
from o3_lightning.common.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

ANSWER = "answer"  # forget prompts with their true answers
REFUSAL = "refusal"  # forget prompts with refusals
WRONG = "wrong"  # forget prompts with wrong answers
IMITATED = "imitated"  # forget prompts with true answers, wrong ones and refusals
STRANGER = "stranger"  # the same about a person whom the model never knew
RETAIN = "retain"  # retained prompts with their true answers
RETAIN_REFUSAL = "retain_refusal"  # retained prompts with refusals
DUAL_STEP = "dual_step"  # the parameter of retain objectives whose coefficient dual ascent adapts


@dataclass(frozen=True)
class View:
    """One view of a batch as the model sees it.

    Args:
        logits: [B, T, V] floating point.
        labels: [B, T] int64, -100 where nothing is to be learnt or unlearnt (prompt, padding).
        reference_logits: [B, T, V] of the model before unlearning, or None.
        hidden: [B, T, D] states of one layer, or None.
        reference_hidden: [B, T, D] of the same layer before unlearning, or None.
        counts: [2], labelled tokens and rows with a label in the whole optimizer step, averaged over its
            processes and micro-batches, and never zero overall; means divide by them, so that every token (or
            row) of the step counts alike. None: this batch is the whole step.
    """

    logits: Tensor
    labels: Tensor
    reference_logits: Tensor | None = None
    hidden: Tensor | None = None
    reference_hidden: Tensor | None = None
    counts: Tensor | None = None

    def need(self, name: str) -> Tensor:
        """Returns an optional part of the view; InputError if it has none."""
        part: Tensor | None = getattr(self, name)
        if part is None:
            raise InputError(f"the objective needs {name.replace('_', ' ')}, none were given")
        return part


Number = float | int | bool | str | None


@dataclass(frozen=True)
class Parameter:
    """A parameter of one objective, declared with its loss.

    Args:
        name: how a configuration spells it, under `parameters`.
        default: the published value.
        doc: meaning, range and source in one line; shown by `--help`.
        low: smallest value of a number.
        open: whether `low` itself is refused, e.g. because the loss divides by it.
        choices: the values of a text; empty for a number or a switch.
    """

    name: str
    default: Number
    doc: str
    low: float = 0.0
    open: bool = False
    choices: tuple[str, ...] = ()

    def check(self, value: Number, field: str) -> None:
        """Raises InputError, with the field and the expected values, for a value of another type or range."""
        if self.choices:
            check_among(value, self.choices, field)
        elif isinstance(self.default, bool):
            if not isinstance(value, bool):
                raise InputError(f"expected true or false, got {value!r}", field=field)
        elif value is not None or self.default is not None:
            fits = isinstance(value, int | float) and not isinstance(value, bool)
            number = float(value or 0) if fits else math.nan
            if not math.isfinite(number) or number < self.low or (self.open and number == self.low):
                expected = f"a number {'above' if self.open else 'of at least'} {self.low:g}"
                raise InputError(f"expected {expected}, got {value!r}", field=field)


class Settings(SimpleNamespace):
    """The parameters of an objective as attributes, and the `seed` of its random draws."""


@dataclass(frozen=True)
class Objective:
    """A loss with the views that it reads and its parameters.

    Args:
        name: its name in a configuration.
        compute: maps the views by name and the settings to a scalar that training minimises.
        views: the views it reads.
        reference: the views whose logits (and hidden states) before unlearning it needs.
        hidden: whether it needs hidden states of its views.
        parameters: with published defaults.
    """

    name: str
    compute: Callable[[Mapping[str, View], Settings], Tensor]
    views: tuple[str, ...]
    reference: tuple[str, ...] = ()
    hidden: bool = False
    parameters: tuple[Parameter, ...] = ()

    def check(self, given: Mapping[str, Number], field: str) -> None:
        """Raises InputError for an unknown parameter, with the nearest known one, or a value out of range."""
        own = {parameter.name: parameter for parameter in self.parameters}
        for name, value in given.items():
            if name not in own:
                near = difflib.get_close_matches(name, own, n=1)
                hint = f"; did you mean '{near[0]}'?" if near else ""
                known = f"has {', '.join(own)}" if own else "has none"
                raise InputError(f"unknown parameter: '{self.name}' {known}{hint}", field=f"{field}.{name}")
            own[name].check(value, f"{field}.{name}")

    def settings(self, given: Mapping[str, Number], seed: int = 0) -> Settings:
        """Returns the parameters with published defaults filled in."""
        defaults = {parameter.name: parameter.default for parameter in self.parameters}
        return Settings(**{**defaults, **given, "seed": seed})

    def __call__(self, views: Mapping[str, View], settings: Settings) -> Tensor:
        """Returns the loss; InputError if a view, or a part of one, is missing."""
        missing = [name for name in self.views if name not in views]
        if missing:
            raise InputError(f"objective '{self.name}' needs the view '{missing[0]}', none was given")
        return self.compute(views, settings)
