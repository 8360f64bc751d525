"""Every objective by name, for forget sets and for retained data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor

from o3_lightning.common.registry import Registry
from o3_lightning.objectives.batch_views import Objective, Parameter, Settings, View

__all__ = ["FORGET", "RETAIN", "describe_parameters", "forget_objective", "retain_objective"]

MODULES = tuple(
    f"o3_lightning.objectives.{name}"
    for name in ("likelihood", "preference", "distributions", "reweighted", "rmu")
)
Loss = Callable[[Mapping[str, View], Settings], Tensor]

FORGET: Registry[Objective] = Registry("objective", MODULES)
RETAIN: Registry[Objective] = Registry("retain_objective", MODULES)


def forget_objective(
    name: str,
    *views: str,
    reference: Sequence[str] = (),
    hidden: bool = False,
    parameters: Sequence[Parameter] = (),
) -> Callable[[Loss], Loss]:
    """Registers a loss on the forget set.

    Args:
        name: its name in a configuration, `objective.forget.name`.
        *views: names of the views it reads, such as `ANSWER`.
        reference: views whose logits before unlearning it needs.
        hidden: whether it needs hidden states.
        parameters: set by `objective.forget.parameters`.

    Returns:
        A decorator for a function of views by name and settings that returns a scalar.

    Example:
        >>> from o3_lightning.objectives import ANSWER, FORGET, Parameter, forget_objective, row_nll
        >>> factor = Parameter("factor", 1.0, "factor of the loss, above 0", open=True)
        >>> @forget_objective("example_ascent", ANSWER, parameters=[factor])
        ... def ascent(views, settings):
        ...     answer = views[ANSWER]
        ...     return -settings.factor * row_nll(answer.logits, answer.labels).mean()
        >>> FORGET["example_ascent"].settings({}).factor
        1.0
    """
    return adder(FORGET, name, views, reference, hidden, parameters)


def retain_objective(
    name: str,
    *views: str,
    reference: Sequence[str] = (),
    hidden: bool = False,
    parameters: Sequence[Parameter] = (),
) -> Callable[[Loss], Loss]:
    """Registers a loss on retained data; arguments as for `forget_objective`."""
    return adder(RETAIN, name, views, reference, hidden, parameters)


def adder(
    registry: Registry[Objective],
    name: str,
    views: Sequence[str],
    reference: Sequence[str],
    hidden: bool,
    parameters: Sequence[Parameter],
) -> Callable[[Loss], Loss]:
    """Returns the decorator that adds a loss to a registry."""

    def add(loss: Loss) -> Loss:
        made = Objective(name, loss, tuple(views), tuple(reference), hidden, tuple(parameters))
        registry.register(name)(made)
        return loss

    return add


def describe_parameters(registry: Registry[Objective]) -> str:
    """Returns one sentence for each parameter: objective, name, default and meaning, for `--help`."""
    return " ".join(
        f"{name}.{parameter.name} = {parameter.default}: {parameter.doc}."
        for name in registry.names()
        for parameter in registry[name].parameters
    )
