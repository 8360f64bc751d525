"""The settings of the objectives, checked before anything is trained."""

from dataclasses import dataclass, field

from o3_lightning.common.checks import ANY_POSITIVE, AT_LEAST_0, check_choice, check_ranges, refuse
from o3_lightning.objectives.batch_views import Objective, Settings
from o3_lightning.objectives.registry import FORGET, RETAIN

NO_RETAIN = "none"
REFERENCES = ("base", "previous")


@dataclass(frozen=True)
class ForgetObjective:
    """The objective on the forget set.

    Args:
        name: "refusal" (learn to say "I don't know"), "random_labels", "ga", "npo", "simnpo", "dpo", "me",
            "undial", "wga", "satimp", "ceu", "eul", "pdu", "imitate" (as about a stranger), "rmu" or "llmu".
        coefficient: factor of the loss, above 0.
        parameters: of the objective by name, such as {beta: 0.2}; those left out take the published value.
        refusals: a text file with one refusal per line; None takes the built-in list.
        refusal_count: number of refusals that one request uses, drawn by its seed; 0 for all. A few are
            learnt in far fewer steps than many.
        official_labels: random_labels draws a letter from A to E, the true one included, as the official
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
        check_choice(self, "objective.forget", "name", FORGET.names())
        check_ranges(self, "objective.forget", coefficient=ANY_POSITIVE, refusal_count=AT_LEAST_0)
        if self.parameters:  # importing the losses takes seconds
            self.objective.check(self.parameters, "objective.forget.parameters")

    @property
    def objective(self) -> Objective:
        """The loss and what it needs."""
        return FORGET[self.name]

    def settings(self, seed: int = 0) -> Settings:
        """Returns the parameters of the loss, with published values for those left out."""
        return self.objective.settings(self.parameters, seed)


@dataclass(frozen=True)
class RetainObjective:
    """The objective on retained data, which preserves the model's behaviour there.

    Args:
        name: "none", "gd", "kl", "ap", "eul", "pdu" or "rmu"; all but "none" need retained data.
        coefficient: factor of the loss, above 0; with "pdu" the initial one.
        parameters: of the objective by name, as for the forget set.

    Raises:
        InputError: an unknown name, or a number outside its range.
    """

    name: str = NO_RETAIN
    coefficient: float = 1.0
    parameters: dict[str, float | int | bool | str | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_choice(self, "objective.retain", "name", [NO_RETAIN, *RETAIN.names()])
        check_ranges(self, "objective.retain", coefficient=ANY_POSITIVE)
        if self.parameters and self.objective is not None:
            self.objective.check(self.parameters, "objective.retain.parameters")
        elif self.parameters:
            refuse("objective.retain", "parameters", "none without an objective", self.parameters)

    @property
    def objective(self) -> Objective | None:
        """The loss and what it needs; None without retained data."""
        return None if self.name == NO_RETAIN else RETAIN[self.name]

    def settings(self, seed: int = 0) -> Settings:
        """Returns the parameters of the loss, with published values for those left out."""
        if self.objective is None:
            return Settings(seed=seed)
        return self.objective.settings(self.parameters, seed)


@dataclass(frozen=True)
class ObjectiveConfig:
    """The loss of an adapter.

    Args:
        forget: objective on the forget set.
        retain: objective on retained data, which it needs unless its name is "none".
        prompt_tokens: also count the tokens of the prompt and its template in every loss, as the official
            code of O3 does, and closer-look's for ME+GD (its `mask: false`).
        reference: the model before unlearning that preference and divergence losses compare with: "base", or
            "previous", the state after the previous request, which differs in adapter.mode "cumulative"
            (closer-look's default; its `fix_ref_model` is "base").

    Raises:
        InputError: an unknown reference.
    """

    forget: ForgetObjective = field(default_factory=ForgetObjective)
    retain: RetainObjective = field(default_factory=RetainObjective)
    prompt_tokens: bool = False
    reference: str = "base"

    def __post_init__(self) -> None:
        check_choice(self, "objective", "reference", REFERENCES)

    @property
    def needs_retained_data(self) -> bool:
        """Whether training reads retained data."""
        return self.retain.name != NO_RETAIN
