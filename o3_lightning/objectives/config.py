"""The settings of the objectives: checked by name and range before anything is trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from o3_lightning.common.errors import InputError
from o3_lightning.objectives.batch_views import Objective, Settings
from o3_lightning.objectives.registry import FORGET, RETAIN

__all__ = ["ForgetObjective", "ObjectiveConfig", "RetainObjective"]

NO_RETAIN = "none"


@dataclass(frozen=True)
class ForgetObjective:
    """What is done to the forget set.

    Args:
        name: "refusal" (learn to say "I don't know"), "random_labels", "ga", "npo", "simnpo", "dpo", "me",
            "undial", "wga", "satimp", "ceu", "rmu" or "llmu".
        coefficient: factor of the loss, above 0.
        parameters: numbers of the objective itself by name, such as {beta: 0.2}; what is left out takes the
            published value.
        refusals: a text file with one refusal a line; null takes the embedded list.
        refusal_count: how many of the refusals one request uses, drawn by its seed; 0 uses all. A few are
            learnt in far fewer steps than many.
        official_labels: random_labels draws a letter out of A to E, the true one included, as the official
            code does, instead of one of the row's wrong answers.

    Raises:
        InputError: an unknown name or parameter, or a number outside its range.
    """

    name: str = "refusal"
    coefficient: float = 1.0
    parameters: dict[str, float | int | bool | str | None] = field(default_factory=dict)
    refusals: str | None = None
    refusal_count: int = 2
    official_labels: bool = False

    def __post_init__(self) -> None:
        check_name(self.name, FORGET.names(), "objective.forget.name")
        check_positive(self.coefficient, "objective.forget.coefficient")
        self.objective.check(self.parameters, "objective.forget.parameters")
        if self.refusal_count < 0:
            raise InputError(
                f"expected 0 or more, got {self.refusal_count}", field="objective.forget.refusal_count"
            )

    @property
    def objective(self) -> Objective:
        """The loss and what it asks for."""
        return FORGET[self.name]

    def settings(self, seed: int = 0) -> Settings:
        """Returns the numbers the loss reads, published values filled in."""
        return self.objective.settings(self.parameters, seed)


@dataclass(frozen=True)
class RetainObjective:
    """What keeps the model as it is on retained data, if a user gives any.

    Args:
        name: "none", "gd", "kl", "ap" or "rmu"; all but "none" need retained data.
        coefficient: factor of the loss, above 0.
        parameters: numbers of the objective itself by name, as for the forget set.

    Raises:
        InputError: an unknown name, or a number outside its range.
    """

    name: str = NO_RETAIN
    coefficient: float = 1.0
    parameters: dict[str, float | int | bool | str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_name(self.name, [NO_RETAIN, *RETAIN.names()], "objective.retain.name")
        check_positive(self.coefficient, "objective.retain.coefficient")
        if self.objective is not None:
            self.objective.check(self.parameters, "objective.retain.parameters")
        elif self.parameters:
            raise InputError(
                "expected no parameters without an objective", field="objective.retain.parameters"
            )

    @property
    def objective(self) -> Objective | None:
        """The loss and what it asks for; None without retained data."""
        return None if self.name == NO_RETAIN else RETAIN[self.name]

    def settings(self, seed: int = 0) -> Settings:
        """Returns the numbers the loss reads, published values filled in."""
        if self.objective is None:
            return Settings(seed=seed)
        return self.objective.settings(self.parameters, seed)


@dataclass(frozen=True)
class ObjectiveConfig:
    """What an adapter is trained to do.

    Args:
        forget: what is done to the forget set.
        retain: what keeps the rest; needs retained data unless its name is "none".
    """

    forget: ForgetObjective = field(default_factory=ForgetObjective)
    retain: RetainObjective = field(default_factory=RetainObjective)

    @property
    def needs_retained_data(self) -> bool:
        """Whether training reads retained data."""
        return self.retain.objective is not None


def check_name(name: str, known: Sequence[str], field: str) -> None:
    """Refuses a name that is not known."""
    if name not in known:
        raise InputError(f"expected one of {', '.join(known)}, got {name!r}", field=field)


def check_positive(value: float, field: str) -> None:
    """Refuses what is not above 0 (NaN included)."""
    if not 0 < value < float("inf"):
        raise InputError(f"expected a number above 0, got {value}", field=field)
