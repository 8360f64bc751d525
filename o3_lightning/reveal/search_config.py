"""Configuration of the instruction bandit: searcher, budget, reward network and exploration."""

from __future__ import annotations

from dataclasses import dataclass

from o3_lightning.common.checks import ANY_POSITIVE, AT_LEAST_0, AT_LEAST_1, check_choice, check_ranges

__all__ = ["SEARCHERS", "SearchConfig"]

COVARIANCES = ("full", "diagonal")
SEARCHERS = ("neural_ucb", "random", "greedy", "thompson")


@dataclass(frozen=True)
class SearchConfig:
    """How instructions are chosen under a budget of queries.

    Args:
        searcher: "neural_ucb" (prediction plus exploration bonus), "thompson" (sampled around the prediction,
            with the bonus as standard deviation), "greedy" (prediction alone) or "random".
        queries: total number of instructions, at least 1; 165 as in INSTINCT.
        first: number of these that are drawn at random before the network is trained; 40 in INSTINCT.
        rounds: outer rounds, at least 1; each starts by resetting the exploration state, except for the best
            arms so far. Not published; our choice.
        warm: number of best arms with which an outer round starts, at least 1.
        candidates: arms drawn at random for each choice, 0 takes all; 1000 in INSTINCT.
        repeat: whether an instruction may be repeated; off, because repetitions reveal little.
        hidden: width of the hidden layer of the reward network; 100 in INSTINCT.
        init_std: standard deviation of the initial weights; 0 takes 1/sqrt(inputs) of each layer, with which
            a few hundred steps suffice. 1 in INSTINCT.
        steps: training steps for each training from the initial weights; 1000 or 30 in INSTINCT.
        learning_rate: of Adam; 0.001 in INSTINCT, with more steps.
        regularisation: lambda, above 0: initial diagonal of Z, and weight decay times the number of queries
            so far; 0.1 as in INSTINCT.
        exploration: nu, at least 0, factor of the squared bonus per feature of a context; 1 was the best of
            three on synthetic bandits with seeds that no figure uses (8 of six for the diagonal). INSTINCT
            uses 1 for the whole context and rewards that are not standardised.
        covariance: matrix Z of the bonus: "full" (as NeuralUCB is stated; exact, needs a matrix of the size
            of the queries) or "diagonal" (as in INSTINCT; ignores correlations between weights).
        chunk: number of arms whose gradients are in memory at a time.

    Raises:
        InputError: an unknown searcher or covariance, or a number outside its range.
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
        check_choice(self, "search", "searcher", SEARCHERS)
        check_choice(self, "search", "covariance", COVARIANCES)
        counts = ("queries", "first", "rounds", "warm", "hidden", "steps", "chunk")
        check_ranges(self, "search", **dict.fromkeys(counts, AT_LEAST_1))
        check_ranges(self, "search", learning_rate=ANY_POSITIVE, regularisation=ANY_POSITIVE)
        check_ranges(self, "search", exploration=AT_LEAST_0, init_std=AT_LEAST_0, candidates=AT_LEAST_0)
