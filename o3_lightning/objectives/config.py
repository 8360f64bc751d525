"""The settings of the objectives: checked by name and range before anything is trained."""

from __future__ import annotations

from dataclasses import dataclass, field

from o3_lightning.common.errors import InputError
from o3_lightning.objectives.batch_views import Objective, Settings
from o3_lightning.objectives.me import DIRECTIONS
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
        beta: the method's temperature or exponent, at least 0; null takes the published value (npo and dpo
            0.1, simnpo 4.5, undial 10, satimp 5, others 1).
        second_beta: satimp's second exponent, at least 0; null takes the published 1.
        delta: simnpo's margin in nats a token; published 0.
        direction: me's divergence: "uniform_to_model" as in its authors' code, "model_to_uniform" as in
            their paper.
        steering: length of rmu's target vector, above 0; 2 as in open-unlearning.
        layer: rmu's hidden layer, counted from 0 for the embedding; null takes the middle one.
        refusals: a text file with one refusal a line; null takes the embedded list.
        refusal_count: how many of the refusals one request uses, drawn by its seed; 0 uses all. A few are
            learnt in far fewer steps than many.
        official_labels: random_labels draws a letter out of A to E, the true one included, as the official
            code does, instead of one of the row's wrong answers.

    Raises:
        InputError: an unknown name or direction, or a number outside its range.
    """

    name: str = "refusal"
    coefficient: float = 1.0
    beta: float | None = None
    second_beta: float | None = None
    delta: float = 0.0
    direction: str = DIRECTIONS[0]
    steering: float = 2.0
    layer: int | None = None
    refusals: str | None = None
    refusal_count: int = 2
    official_labels: bool = False

    def __post_init__(self) -> None:
        check_name(self.name, tuple(FORGET), "objective.forget.name")
        check_name(self.direction, DIRECTIONS, "objective.forget.direction")
        check_positive(self.coefficient, "objective.forget.coefficient")
        check_positive(self.steering, "objective.forget.steering")
        check_beta(self.beta, self.name, "objective.forget.beta")
        check_beta(self.second_beta, "", "objective.forget.second_beta")
        if self.refusal_count < 0:
            raise InputError(
                f"expected 0 or more, got {self.refusal_count}", field="objective.forget.refusal_count"
            )
        if self.layer is not None and self.layer < 0:
            raise InputError(f"expected 0 or more, got {self.layer}", field="objective.forget.layer")

    @property
    def objective(self) -> Objective:
        """The loss and what it asks for."""
        return FORGET[self.name]

    def settings(self, seed: int = 0) -> Settings:
        """Returns the numbers the loss reads, published values filled in."""
        return Settings(
            beta=self.objective.beta if self.beta is None else self.beta,
            second_beta=self.objective.second_beta if self.second_beta is None else self.second_beta,
            delta=self.delta,
            direction=self.direction,
            steering=self.steering,
            seed=seed,
        )


@dataclass(frozen=True)
class RetainObjective:
    """What keeps the model as it is on retained data, if a user gives any.

    Args:
        name: "none", "gd", "kl", "ap" or "rmu"; all but "none" need retained data.
        coefficient: factor of the loss, above 0.
        beta: ap's temperature, above 0; null takes the published 0.1.
        every_token: kl counts prompt and padding too, as the published codes do.

    Raises:
        InputError: an unknown name, or a number outside its range.
    """

    name: str = NO_RETAIN
    coefficient: float = 1.0
    beta: float | None = None
    every_token: bool = False

    def __post_init__(self) -> None:
        check_name(self.name, (NO_RETAIN, *RETAIN), "objective.retain.name")
        check_positive(self.coefficient, "objective.retain.coefficient")
        check_beta(self.beta, self.name, "objective.retain.beta")

    @property
    def objective(self) -> Objective | None:
        """The loss and what it asks for; None without retained data."""
        return RETAIN.get(self.name)

    def settings(self, seed: int = 0) -> Settings:
        """Returns the numbers the loss reads, published values filled in."""
        published = 1.0 if self.objective is None else self.objective.beta
        return Settings(
            beta=published if self.beta is None else self.beta, every_token=self.every_token, seed=seed
        )


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


DIVIDES_BY_BETA = frozenset({"npo", "simnpo", "dpo", "ap"})


def check_name(name: str, known: tuple[str, ...], field: str) -> None:
    """Refuses a name that is not known."""
    if name not in known:
        raise InputError(f"expected one of {', '.join(known)}, got {name!r}", field=field)


def check_positive(value: float, field: str) -> None:
    """Refuses what is not above 0 (NaN included)."""
    if not 0 < value < float("inf"):
        raise InputError(f"expected a number above 0, got {value}", field=field)


def check_beta(beta: float | None, name: str, field: str) -> None:
    """Refuses an exponent below 0, and 0 where the method divides by it."""
    if beta is None:
        return
    if name in DIVIDES_BY_BETA:
        check_positive(beta, field)
    elif not 0 <= beta < float("inf"):
        raise InputError(f"expected a number of at least 0, got {beta}", field=field)
