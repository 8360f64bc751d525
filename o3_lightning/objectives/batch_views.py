"""What an objective sees: logits and labels of one or several views of the same rows, and what it asks for.

Shapes: B rows, T tokens, D width, V vocabulary.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import SimpleNamespace

from torch import Tensor

from o3_lightning.common.errors import InputError

__all__ = [
    "ANSWER",
    "REFUSAL",
    "RETAIN",
    "RETAIN_REFUSAL",
    "WRONG",
    "Number",
    "Objective",
    "Parameter",
    "Settings",
    "View",
]

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


Number = float | int | bool | str | None


@dataclass(frozen=True)
class Parameter:
    """A number of one objective, declared beside its loss.

    Args:
        name: how a configuration spells it, under `parameters`.
        default: the published value.
        doc: meaning, range and source in one line; shown by `--help`.
        low: smallest value of a number.
        open: whether `low` itself is refused, as where the loss divides by it.
        choices: the values of a text; empty for a number or a switch.
    """

    name: str
    default: Number
    doc: str
    low: float = 0.0
    open: bool = False
    choices: tuple[str, ...] = ()

    def check(self, value: Number, field: str) -> None:
        """Refuses a value of another type or outside the range.

        Raises:
            InputError: names the field, the expected values and the given one.
        """
        if self.choices:
            if value not in self.choices:
                raise InputError(f"expected one of {', '.join(self.choices)}, got {value!r}", field=field)
        elif isinstance(self.default, bool):
            if not isinstance(value, bool):
                raise InputError(f"expected true or false, got {value!r}", field=field)
        elif value is not None or self.default is not None:
            fits = isinstance(value, int | float) and not isinstance(value, bool)
            if not fits or not self.inside(float(value or 0)):
                expected = f"a number {'above' if self.open else 'of at least'} {self.low:g}"
                raise InputError(f"expected {expected}, got {value!r}", field=field)

    def inside(self, value: float) -> bool:
        """Whether a number is finite and in the range."""
        return math.isfinite(value) and (value > self.low or (value == self.low and not self.open))


class Settings(SimpleNamespace):
    """The parameters of an objective as attributes, and `seed` for whatever it draws."""


@dataclass(frozen=True)
class Objective:
    """A loss and the views that it reads.

    Args:
        name: its name in a configuration.
        compute: maps the views by name and the settings to a scalar that training minimises.
        views: the views it reads.
        reference: those of which it needs the logits (and hidden states) before unlearning.
        hidden: whether it needs hidden states of its views.
        parameters: its own numbers, with published defaults.
    """

    name: str
    compute: Callable[[Mapping[str, View], Settings], Tensor]
    views: tuple[str, ...]
    reference: tuple[str, ...] = ()
    hidden: bool = False
    parameters: tuple[Parameter, ...] = ()

    def check(self, given: Mapping[str, Number], field: str) -> None:
        """Refuses parameters that the objective does not have, and values outside their range.

        Raises:
            InputError: names the field and the nearest parameter.
        """
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
        """Returns the loss.

        Raises:
            InputError: a view, or a part of one, is missing.
        """
        missing = [name for name in self.views if name not in views]
        if missing:
            raise InputError(f"objective '{self.name}' needs the view '{missing[0]}', none was given")
        return self.compute(views, settings)
