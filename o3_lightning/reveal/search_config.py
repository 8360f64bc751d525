"""The settings of the instruction bandit: searcher, budget, reward network, exploration."""

from __future__ import annotations

from dataclasses import dataclass

from o3_lightning.common.errors import InputError

__all__ = ["SEARCHERS", "SearchConfig"]

COVARIANCES = ("full", "diagonal")
SEARCHERS = ("neural_ucb", "random", "greedy", "thompson")


@dataclass(frozen=True)
class SearchConfig:
    """How instructions are chosen under a budget of queries.

    Args:
        searcher: "neural_ucb" (prediction plus exploration bonus), "thompson" (a draw around the prediction,
            as wide as the bonus), "greedy" (prediction alone) or "random".
        queries: instructions asked in all, at least 1; 165 as in INSTINCT.
        first: of these, how many are drawn at random before the network is trained; 40 in INSTINCT. Fewer
            leave more to the searcher.
        rounds: outer rounds, at least 1; each begins by forgetting what was explored, except for the best
            arms so far. Not published; our choice.
        warm: how many of the best arms an outer round begins with, at least 1.
        candidates: arms drawn at random for each choice, 0 takes all; 1000 in INSTINCT.
        repeat: whether an instruction may be asked again. Off, because the same instruction says little new.
        hidden: width of the reward network's one hidden layer; 100 in INSTINCT.
        init_std: standard deviation of its initial weights; 0 takes 1/sqrt(inputs) of each layer, with which
            a few hundred steps fit. INSTINCT has 1.
        steps: training steps each time the network is trained from its start; INSTINCT has 1000 or 30.
        learning_rate: of Adam; INSTINCT has 0.001, with more steps.
        regularisation: lambda above 0: start of Z's diagonal, and weight decay times queries so far; 0.1
            as in INSTINCT.
        exploration: nu, at least 0, the factor of the squared bonus per feature of a context; 1 was the best
            of three on synthetic bandits of seeds that no figure uses (with the diagonal alone, 8 of six).
            INSTINCT has 1 for the whole context, and rewards that are not standardised.
        covariance: how the bonus sees what was explored: "full" (all pairs of the network's weights, as
            NeuralUCB is stated; exact, at the cost of a matrix as large as the queries) or "diagonal" (as in
            INSTINCT; looks twice where two weights always change together).
        chunk: arms whose gradients are held in memory at a time.

    Raises:
        InputError: an unknown searcher, fewer than one query, or a number outside its range.
    """

    searcher: str = "neural_ucb"
    queries: int = 165
    first: int = 20
    rounds: int = 1
    warm: int = 20
    candidates: int = 1000
    repeat: bool = False
    hidden: int = 100
    init_std: float = 0.0
    steps: int = 60
    learning_rate: float = 0.02
    regularisation: float = 0.1
    exploration: float = 1.0
    covariance: str = "full"
    chunk: int = 256

    def __post_init__(self) -> None:
        if self.searcher not in SEARCHERS:
            refuse("searcher", f"one of {', '.join(SEARCHERS)}", repr(self.searcher))
        if self.covariance not in COVARIANCES:
            refuse("covariance", f"one of {', '.join(COVARIANCES)}", repr(self.covariance))
        for field in ("queries", "first", "rounds", "warm", "hidden", "steps", "chunk"):
            if getattr(self, field) < 1:
                refuse(field, "1 or more", getattr(self, field))
        for field in ("learning_rate", "regularisation"):
            if not 0 < getattr(self, field) < float("inf"):
                refuse(field, "a number above 0", getattr(self, field))
        for field in ("exploration", "init_std", "candidates"):
            if not 0 <= getattr(self, field) < float("inf"):
                refuse(field, "0 or more", getattr(self, field))


def refuse(field: str, expected: str, value: object) -> None:
    """Raises the error of a field."""
    raise InputError(f"expected {expected}, got {value}", field=f"search.{field}")
