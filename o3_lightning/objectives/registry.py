"""Every objective by name, for forget sets and for retained data."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from o3_lightning.common.registry import Registry
from o3_lightning.objectives.batch_views import Objective, Parameter, Settings, View

if TYPE_CHECKING:
    from torch import Tensor

MODULES = tuple(
    f"o3_lightning.objectives.{name}" for name in ("likelihood", "preference", "distributions", "rmu")
)
Loss = Callable[[Mapping[str, View], Settings], "Tensor"]
FORGET_NAMES = (
    "random_labels", "refusal", "ga", "llmu", "wga", "satimp", "npo", "simnpo", "dpo",
    "me", "undial", "ceu", "imitate", "eul", "pdu", "rmu",
)  # fmt: skip
RETAIN_NAMES = ("gd", "ap", "kl", "eul", "pdu", "rmu")


class ObjectiveRegistry(Registry[Objective]):
    """Objectives by name."""

    def declare(
        self,
        name: str,
        *views: str,
        reference: Sequence[str] = (),
        hidden: bool = False,
        parameters: Sequence[Parameter] = (),
    ) -> Callable[[Loss], Loss]:
        """Registers a loss as an objective; `forget_objective` and `retain_objective` are this decorator.

        Args:
            name: in a configuration, `objective.forget.name` or `objective.retain.name`.
            *views: names of the views it reads, such as `ANSWER`.
            reference: views whose logits before unlearning it needs.
            hidden: whether it needs hidden states.
            parameters: set by `objective.forget.parameters` or `objective.retain.parameters`.

        Returns:
            A decorator for a function of views by name and settings that returns a scalar.

        Example:
            >>> from o3_lightning.objectives import ANSWER, Parameter, row_nll
            >>> factor = Parameter("factor", 1.0, "factor of the loss, above 0", open=True)
            >>> mine = ObjectiveRegistry("objective")  # as FORGET, whose decorator is `forget_objective`
            >>> @mine.declare("ascent", ANSWER, parameters=[factor])
            ... def ascent(views, settings):
            ...     answer = views[ANSWER]
            ...     return -settings.factor * row_nll(answer.logits, answer.labels).mean()
            >>> mine["ascent"].settings({}).factor
            1.0
        """

        def add(loss: Loss) -> Loss:
            made = Objective(name, loss, views, tuple(reference), hidden, tuple(parameters))
            self.register(name)(made)
            return loss

        return add


FORGET = ObjectiveRegistry("objective", MODULES, FORGET_NAMES)
RETAIN = ObjectiveRegistry("retain_objective", MODULES, RETAIN_NAMES)
forget_objective, retain_objective = FORGET.declare, RETAIN.declare


def describe_parameters(registry: Registry[Objective]) -> str:
    """Returns one sentence for each parameter: objective, name, default and meaning, for `--help`."""
    return " ".join(
        f"{name}.{parameter.name} = {parameter.default}: {parameter.doc}."
        for name in registry.names()
        for parameter in registry[name].parameters
    )
