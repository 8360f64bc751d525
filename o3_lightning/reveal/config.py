"""Configuration of a search: instructions, searcher, reward, sampling, and which answers are kept."""

import json
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path

from o3_lightning.common.checks import (
    ANY_POSITIVE,
    AT_LEAST_0,
    AT_LEAST_1,
    FRACTION,
    INSIDE,
    check_choice,
    check_ranges,
)
from o3_lightning.common.errors import InputError
from o3_lightning.data.requests import check_id
from o3_lightning.models.config import BaseConfig

FAMILIES = ("text", "soft")
PHRASES: dict[str, list[str]] = json.loads(
    files(__package__).joinpath("phrases.json").read_text(encoding="utf-8")
)
SCORERS = ("contrast", "similarity", "classifier", "entities", "code", "words", "truth")
NEEDS = {
    "contrast": ("others",),
    "similarity": ("phrases",),
    "classifier": ("classifier", "labels"),
    "entities": ("classifier", "labels"),
    "words": ("words",),
}
DIVERSITIES = ("novelty", "within")

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


@dataclass(frozen=True)
class ArmsConfig:
    """The pool of instructions.

    Args:
        family: "text" (questions from a generated pool) or "soft" (points of a Sobol sequence, mapped to
            soft tokens before a fixed question, as in INSTINCT).
        pool: number of instructions, at least 1; 10000 in INSTINCT.
        general_subjects: number of subjects unrelated to the topic that appear in instructions as often as
            the topic, 0 to 90; 0 names the topic in every instruction. More subjects make the search harder.
        phrases: text file with one instruction per line, in which "{topic}" is replaced by the topic; it
            replaces the generated pool. None generates the pool.
        rewrites: number of instructions that the model itself paraphrases; paraphrases that name the topic
            are added to the pool. For instruction-tuned models; 0 for none.
        soft_question: question that follows the soft tokens.

    Raises:
        InputError: an unknown family, or a number outside its range.
    """

    family: str = "text"
    pool: int = 10_000
    general_subjects: int = 0
    phrases: str | None = None
    rewrites: int = 0
    soft_question: str = "{topic}?"

    def __post_init__(self) -> None:
        check_choice(self, "arms", "family", FAMILIES)
        most = len(PHRASES["general_subjects"])
        check_ranges(self, "arms", pool=AT_LEAST_1, rewrites=AT_LEAST_0, general_subjects=(0, most))


@dataclass(frozen=True)
class RewardConfig:
    """The reward of an instruction.

    Args:
        scorer: measure of relevance: "contrast" (likelihood about the topic minus others; needs only a name),
            "similarity" (cosine to some phrases), "classifier" (probability of labels), "entities" (rate of
            entity types by a token classifier), "code" (rate of lines of Python), "words" (keywords or
            regular expressions) or "truth" (uses the fictitious facts; for tests, not for measurements).
        others: for "contrast": names of the same kind as the topic, unknown to the model.
        phrases: for "similarity": texts about the topic; "{topic}" is replaced by it.
        classifier: for "classifier" and "entities": Hugging Face id or folder, safetensors only.
        labels: for "classifier": relevant labels; for "entities": relevant types, such as PER.
        words: for "words": keywords or regular expressions; "{topic}" is replaced by the topic.
        saturation: for "words": number of matches from which the relevance is 1.
        relevance_weight: w_r of the harmonic mean, above 0; the published weights are not known.
        diversity_weight: w_d of the harmonic mean, at least 0; 0 ignores diversity.
        diversity: "novelty" (increase per answer of the Vendi score of all relevant rows so far; finds many
            facts with one answer each) or "within" (Vendi score of the answers to one instruction over their
            number, as published; finds instructions with varying answers).
        phrasing: novelty of a known answer to a differently phrased instruction, in [0, 1]; our choice.
        floor: lower bound of both parts of the mean, in (0, 1).
        encoder: sentence encoder of the embeddings, such as "minilm".

    Raises:
        InputError: no or an unknown scorer, one that is not fully configured, or a number outside its range.
    """

    scorer: str = "contrast"
    others: tuple[str, ...] = ("John Smith", "Mary Jones", "Peter Brown", "Anna Miller", "Carl Weber")
    phrases: tuple[str, ...] = ("{topic}",)
    classifier: str = ""
    labels: tuple[str, ...] = ()
    words: tuple[str, ...] = ()
    saturation: int = 1
    relevance_weight: float = 1.0
    diversity_weight: float = 1.0
    diversity: str = "novelty"
    phrasing: float = 0.5
    floor: float = 0.01
    encoder: str = "minilm"

    def __post_init__(self) -> None:
        if self.scorer not in SCORERS:
            said = repr(self.scorer) if self.scorer else "no scorer"
            raise InputError(f"expected one of {', '.join(SCORERS)}, got {said}", field="reward.scorer")
        for name in NEEDS.get(self.scorer, ()):
            if not getattr(self, name):
                raise InputError(f"the scorer '{self.scorer}' needs it, got none", field=f"reward.{name}")
        check_choice(self, "reward", "diversity", DIVERSITIES)
        check_ranges(self, "reward", relevance_weight=ANY_POSITIVE, diversity_weight=AT_LEAST_0)
        check_ranges(self, "reward", saturation=AT_LEAST_1, phrasing=FRACTION, floor=INSIDE)


@dataclass(frozen=True)
class SamplingConfig:
    """How the model answers an instruction.

    Args:
        samples: answers sampled per instruction, at least 1; duplicates are removed.
        temperature: of sampling; 0 decodes greedily, with a single sample.
        max_new_tokens: maximum length of an answer in tokens, at least 1.
        batch_size: texts per batch.

    Raises:
        InputError: a number outside its range.
    """

    samples: int = 4
    temperature: float = 1.0
    max_new_tokens: int = 32
    batch_size: int = 64

    def __post_init__(self) -> None:
        counts = ("samples", "max_new_tokens", "batch_size")
        check_ranges(self, "sampling", temperature=AT_LEAST_0, **dict.fromkeys(counts, AT_LEAST_1))


@dataclass(frozen=True)
class FilterConfig:
    """Which answers become rows of the request.

    Args:
        relevance: minimum relevance of an answer, in [0, 1].
        shortest: minimum length of an answer in characters.
        longest: maximum length of an answer in characters, at least 1.
        per_answer: maximum number of rows with the same answer, of which the most relevant are used, at least
            1; several phrasings of a fact help unlearning to generalise.
        rows: maximum number of rows, at least 1.
        wrong_answers: maximum number of wrong answers per row, 0 for none: what the model answers to the same
            instruction about others, for objectives that need them. Only with the scorer "contrast".

    Raises:
        InputError: a number outside its range.
    """

    relevance: float = 0.5
    shortest: int = 1
    longest: int = 2000
    per_answer: int = 12
    rows: int = 1000
    wrong_answers: int = 3

    def __post_init__(self) -> None:
        check_ranges(self, "filter", relevance=FRACTION, shortest=AT_LEAST_0, wrong_answers=AT_LEAST_0)
        check_ranges(self, "filter", longest=AT_LEAST_1, per_answer=AT_LEAST_1, rows=AT_LEAST_1)


@dataclass(frozen=True)
class TopicConfig:
    """The settings that reveal and release share.

    Args:
        name: of the folder of the results; letters, digits, '.', '_' or '-'.
        output: parent folder of the results, relative to the working directory.
        seed: an integer >= 0, of every random choice and of the fictitious world.
        topic: what the model is asked about, such as a name.
        base: the language model.
        arms: the instructions.
        search: how they are chosen.
        reward: of an instruction.
        sampling: how the model answers.
        filter: which answers become rows.
    """

    name: str = "reveal"
    output: str = "runs"
    seed: int = 0
    topic: str = ""
    base: BaseConfig = field(default_factory=BaseConfig)
    arms: ArmsConfig = field(default_factory=ArmsConfig)
    search: SearchConfig = field(default_factory=SearchConfig)
    reward: RewardConfig = field(default_factory=RewardConfig)
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    filter: FilterConfig = field(default_factory=FilterConfig)

    def __post_init__(self) -> None:
        check_ranges(self, seed=AT_LEAST_0)
        check_id(self.name)

    @property
    def folder(self) -> Path:
        """The folder of the results."""
        return Path(self.output) / self.name


@dataclass(frozen=True)
class RevealConfig(TopicConfig):
    """Configuration of a search.

    Args:
        request_id: id of the request that is written; empty derives it from the topic.
    """

    request_id: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_id(self.identifier)

    @property
    def identifier(self) -> str:
        """The id of the request."""
        if self.request_id:
            return self.request_id
        letters = "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in self.topic)
        return letters.strip("_").lower()[:64] or "topic"
