"""The settings of release: rounds, the grid of lambda, the budget on utility, the way of subtracting."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from o3_lightning.adapter.config import AdapterConfig
from o3_lightning.common.errors import InputError
from o3_lightning.data.requests import check_id
from o3_lightning.models.base import BaseConfig
from o3_lightning.reveal.arms import ArmsConfig
from o3_lightning.reveal.output import FilterConfig
from o3_lightning.reveal.reveal import RevealConfig
from o3_lightning.reveal.reward import RewardConfig
from o3_lightning.reveal.search_config import SearchConfig
from o3_lightning.reveal.speaking import SamplingConfig

__all__ = ["MODES", "ReleaseConfig"]

MODES = ("naive", "ext_sub", "orthogonal")
MEASURES = ("", "fictitious")


@dataclass(frozen=True)
class ReleaseConfig:
    """Everything that decides what is released.

    The paper (arXiv 2509.14624) leaves open: lambda, rounds, rank, what is measured for the budget and when
    to stop. All of these are settings here.

    Args:
        name: names the folder of the results; letters, digits, '.', '_' or '-'.
        output: folder that holds the results, relative to the working directory.
        seed: an integer >= 0.
        topic: what the model is to forget, such as a name; needed where no request is given.
        requests: JSON-lines files of given forget sets, used in each round in place of revealed rows.
        retain: a JSON-lines file of rows to keep, in the form of a request; None uses text that the model
            generates about other things.
        mode: "naive" (subtract the forget adapter), "ext_sub" (only its part outside the direction that it
            shares with a retain adapter, module by module) or "orthogonal" (the forget adapter is trained
            with a penalty on its overlap with a retain adapter).
        rounds: at most, at least 1.
        steps: adapters that a round trains and subtracts, one after the other, at least 1. A model that
            is certain of an answer gives hardly any gradient on it; the first steps make it uncertain, and
            the adapters of the later ones point where its knowledge is.
        lambdas: grid of the factor lambda_f, all above 0; walked upwards until a factor costs too much or
            every row counts as forgotten. Later steps need much smaller factors than the first.
        retain_lambda: factor lambda_r of the retain adapter that is added, at least 0.
        budget: most that the utility may drop, over all rounds, in nats a token: KL(base || candidate) on the
            answers of neutral text. Spread evenly over the steps of all rounds; what one leaves goes to the
            next.
        keep: factor of the KL divergence on neutral text while the forget adapter is trained, at least 0; it
            keeps the adapter, and so what is subtracted, out of other topics' way.
        temperature: of the softmax while adapters are trained, in both losses, above 0. A model that is
            certain gives hardly any gradient at 1, on what it has to forget and on what it has to keep; 3 on
            the small models here. 1 is what the paper's words say.
        neutral: neutral questions, at least 4; three quarters serve `keep`, the last one, without names, the
            budget.
        stop: a row counts as forgotten where the mean probability of its answer's tokens, the end token left
            out, is below this, and one of them is not the likeliest. No adapter is trained on such a row. A
            round that finds no other row is quiet; two quiet rounds end the release. In [0, 1].
        further: questions about the topic that the original is asked besides those of the search, 0 for
            none. Those whose answer was revealed or given, too, say what is to be forgotten in other words:
            half of them are trained on, half only judge what is still known. They need a topic.
        measure: "fictitious" measures the author, the other authors and common facts after each round, for
            the report alone; empty measures nothing that release could not know.
        base: the language model.
        adapter: shape and training of the adapters; its penalty is that of the mode "orthogonal".
        arms: as in reveal.
        search: as in reveal.
        reward: as in reveal.
        sampling: as in reveal.
        filter: as in reveal.

    Raises:
        InputError: an unknown mode, neither topic nor request, or a number outside its range.
    """

    name: str = "release"
    output: str = "runs"
    seed: int = 0
    topic: str = ""
    requests: tuple[str, ...] = ()
    retain: str | None = None
    mode: str = "naive"
    rounds: int = 3
    steps: int = 6
    lambdas: tuple[float, ...] = (0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 12.0)
    retain_lambda: float = 0.0
    budget: float = 0.1
    keep: float = 30.0
    temperature: float = 3.0
    neutral: int = 160
    stop: float = 0.03
    further: int = 300
    measure: str = ""
    base: BaseConfig = field(default_factory=BaseConfig)
    adapter: AdapterConfig = field(default_factory=AdapterConfig)
    arms: ArmsConfig = field(default_factory=ArmsConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    filter: FilterConfig = field(default_factory=FilterConfig)

    def __post_init__(self) -> None:
        check_id(self.name)
        if self.mode not in MODES:
            refuse("mode", f"one of {', '.join(MODES)}", repr(self.mode))
        if self.measure not in MEASURES:
            refuse("measure", "fictitious or nothing", repr(self.measure))
        if not self.lambdas or not all(0 < value < float("inf") for value in self.lambdas):
            refuse("lambdas", "numbers above 0", list(self.lambdas))
        for name, least in (("seed", 0), ("rounds", 1), ("steps", 1), ("neutral", 4), ("further", 0)):
            if getattr(self, name) < least:
                refuse(name, f"{least} or more", getattr(self, name))
        for name in ("retain_lambda", "budget", "keep"):
            if not 0 <= getattr(self, name) < float("inf"):
                refuse(name, "0 or more", getattr(self, name))
        if not 0 < self.temperature < float("inf"):
            refuse("temperature", "a number above 0", self.temperature)
        if not 0 <= self.stop <= 1:
            refuse("stop", "0 to 1", self.stop)

    @property
    def folder(self) -> Path:
        """Where the results go."""
        return Path(self.output) / self.name

    def revealing(self) -> RevealConfig:
        """Returns the configuration of one round's search."""
        return RevealConfig(
            seed=self.seed,
            topic=self.topic,
            base=self.base,
            arms=self.arms,
            search=self.search,
            reward=self.reward,
            sampling=self.sampling,
            filter=self.filter,
        )


def refuse(field: str, expected: str, value: object) -> None:
    """Raises the error of a field."""
    raise InputError(f"expected {expected}, got {value}", field=field)
