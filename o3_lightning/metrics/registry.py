"""The registry of metrics: each is declared beside its function, by the decorator `metric`.

A metric gives one value per example of one split. What compares two splits or two models starts from these
values and is in `metrics.quality`, `metrics.membership` and `metrics.continual`.

Shapes: B examples.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeVar

from o3_lightning.common.registry import Registry
from o3_lightning.metrics.evidence import Evidence, Kind

__all__ = ["METRICS", "NEEDS", "Direction", "Metric", "Values", "measure", "metric", "missing", "needs_of"]

Direction = Literal["lower", "higher"]
Values = Sequence[float | None]
Function = TypeVar("Function", bound=Callable[..., Values])

NEEDS = tuple(field.name for field in fields(Evidence) if field.default is None)
"""The fields of `Evidence` that are None unless they were collected."""
ROOM = "o3_lightning.metrics"
MODULES = ("text", "choice", "likelihood", "fluency", "similarity", "memorization", "membership")


@dataclass(frozen=True)
class Metric:
    """One metric.

    Args:
        name: its name in configurations and results; "metric@version" where sources define it differently.
        function: from the arguments to B values; None where an example has no value.
        arguments: the fields or properties of `Evidence` that the function takes, in order.
        forget: the better direction on a forget split; None if neither is better: a membership value has a
            meaning only against unseen data, a raw truth ratio only against a retrained model.
        keep: the better direction on a utility split, or None.
        meaning: one sentence for reports.
    """

    name: str
    function: Callable[..., Values]
    arguments: tuple[str, ...]
    forget: Direction | None
    keep: Direction | None
    meaning: str

    @property
    def needs(self) -> tuple[str, ...]:
        """The fields of `Evidence` that must not be None."""
        fields = ("token_scores" if name == "losses" else name for name in self.arguments)
        return tuple(name for name in fields if name in NEEDS)

    def direction(self, kind: Kind) -> Direction | None:
        """Returns the better direction on a split of this kind."""
        return self.forget if kind == "forget" else self.keep


METRICS: Registry[Metric] = Registry("metric", [f"{ROOM}.{module}" for module in MODULES])


def metric(
    name: str, *arguments: str, forget: Direction | None, keep: Direction | None, meaning: str
) -> Callable[[Function], Function]:
    """Returns a decorator that registers a function as a metric and leaves the function as it is.

    Args:
        name: see `Metric`.
        arguments: see `Metric`; such as "answers", "truths", "losses", "token_scores", "answer_tokens".
        forget: see `Metric`.
        keep: see `Metric`.
        meaning: see `Metric`.

    Raises:
        ValueError: an argument that `Evidence` does not have, or another metric has the name.

    Example:
        >>> @metric("words", "answers", forget=None, keep=None, meaning="answer length")  # doctest: +SKIP
        ... def count_words(answers):
        ...     return [float(len(answer.split())) for answer in answers]
    """
    known = {"losses", *(field.name for field in fields(Evidence))}
    unknown = [argument for argument in arguments if argument not in known]
    if unknown:
        raise ValueError(f"metric '{name}': expected arguments out of {sorted(known)}, got {unknown}")

    def add(function: Function) -> Function:
        METRICS.register(name)(Metric(name, function, arguments, forget, keep, meaning))
        return function

    return add


def missing(name: str, evidence: Evidence) -> list[str]:
    """Returns the fields that a metric needs and that the evidence lacks.

    Raises:
        InputError: no metric has this name.
    """
    return [need for need in METRICS[name].needs if getattr(evidence, need) is None]


def needs_of(names: Iterable[str]) -> set[str]:
    """Returns the fields of `Evidence` that some metrics need together.

    Raises:
        InputError: no metric has one of the names.
    """
    return {need for name in names for need in METRICS[name].needs}


def measure(name: str, evidence: Evidence) -> Values:
    """Returns the metric's value of each example, None where an example has none.

    Args:
        name: of a registered metric.
        evidence: of one split.

    Raises:
        InputError: no metric has this name.
        ValueError: the evidence lacks a field that the metric needs; the message names it.

    Example:
        >>> measure("rouge1_recall", Evidence("keep", ["Where?"], ["in Paris"], answers=["Paris"]))
        [0.5]
    """
    lacking = missing(name, evidence)
    if lacking:
        raise ValueError(f"metric {name!r} needs {', '.join(lacking)}, which the evidence lacks")
    found = METRICS[name]
    arguments: list[Any] = [getattr(evidence, argument) for argument in found.arguments]
    return found.function(*arguments)
