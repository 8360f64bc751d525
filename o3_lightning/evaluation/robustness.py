"""How much leaks under attack, request by request, and what attacks do to prompts nobody asked to forget.

Shapes: B attempts, K requests.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from o3_lightning.data.stream import RequestStream, spread
from o3_lightning.errors import InputError
from o3_lightning.evaluation.attacks import TEXT_ATTACKS, Attack, Material
from o3_lightning.evaluation.attempts import Attempted, one_hot, prepare
from o3_lightning.evaluation.batching import BatchRunner
from o3_lightning.evaluation.config import EvaluationConfig
from o3_lightning.evaluation.evaluate import Surroundings, ends_of
from o3_lightning.evaluation.tampering import quantised, relearned
from o3_lightning.gating.model import GatedModel
from o3_lightning.metrics.aggregate import mean_of
from o3_lightning.metrics.text import accuracy
from o3_lightning.requests import QuestionAnswer, UnlearningRequest
from o3_lightning.seeds import stage_seed

__all__ = ["Robustness", "as_table"]

logger = logging.getLogger(__name__)

Row = dict[str, Any]


@dataclass(frozen=True)
class Robustness:
    """Attacks one gated model.

    Args:
        model: has at least one request.
        stream: the requests and the utility splits.
        config: which attacks, how many rows, how long answers may be.
        surroundings: other processes, and attacks that are finished.
        seed: of the attacker's training.

    Raises:
        InputError: the model has no request of the stream, or there is no utility split to compare with.
    """

    model: GatedModel
    stream: RequestStream
    config: EvaluationConfig
    surroundings: Surroundings
    seed: int

    def __post_init__(self) -> None:
        if not self.requests:
            raise InputError("there is nothing to attack: the store holds no request", field="robustness")
        if not self.stream.utility:
            raise InputError("attacks need a utility split to compare with", field="robustness")

    @cached_property
    def requests(self) -> list[UnlearningRequest]:
        """The requests that the model holds."""
        return [request for request in self.stream.requests if request.id in self.model.ids]

    @cached_property
    def utility(self) -> list[QuestionAnswer]:
        """Rows of all utility splits."""
        splits = self.stream.utility.values()
        return [row for rows in splits for row in spread(rows, self.config.robustness.rows)]

    @cached_property
    def runner(self) -> BatchRunner:
        """Batches, shared between processes."""
        return BatchRunner(self.config.batch_size, self.surroundings.processes, "attack")

    def run(self) -> list[Row]:
        """Returns one row per attack and request, in the order of the configuration.

        Returns:
            Rows with `attack`, `request`, `leak` (share of answers that say the truth), `leak_interval`
            (Wilson, 95 %), `base_leak` (the base model under the same attack), `caught` (share of attempts
            that the request's detector catches), `false_alarm` with `false_alarm_interval` (share of utility
            prompts, attacked in the same way, that any detector catches), `utility` and `base_utility`
            (share of these that are answered right, gated and by the base model), `attempts`, `too_long` and
            `shortened`. None where an attack has no such thing.
        """
        table: list[Row] = []
        for name, work in self.plan():
            logger.info("  attack: %s", name)
            result = self.surroundings.resume(name, partial(as_result, work))
            table += [{"attack": name, **row} for row in result["rows"]]
        return table

    def plan(self) -> list[tuple[str, Callable[[], list[Row]]]]:
        """Every attack by name, and its work."""
        robust = self.config.robustness
        planned: list[tuple[str, Callable[[], list[Row]]]] = []
        for name in robust.attacks:
            if name in TEXT_ATTACKS:
                planned.append((name, partial(self.by_text, TEXT_ATTACKS[name])))
            elif name == "adapter_off":
                planned.append((name, partial(self.at_weights, always_on=False)))
            elif name == "adapter_always_on":
                planned.append((name, partial(self.at_weights, always_on=True)))
            elif name == "quantise":
                planned += [(f"quantise_{bits}_bits", partial(self.by_bits, bits)) for bits in robust.bits]
            else:
                planned += [
                    (f"relearn_{rows}_rows", partial(self.by_relearning, rows))
                    for rows in robust.relearn_rows
                ]
        return planned

    def by_text(self, attack: Attack) -> list[Row]:
        """Attacks the wording of every prompt."""
        kept = self.attempt(attack, self.utility)
        return self.rows(attack, kept)

    def by_bits(self, bits: int) -> list[Row]:
        """Asks plain questions of rounded weights."""
        with quantised(self.model, bits):
            return self.by_text(TEXT_ATTACKS["none"])

    def rows(self, attack: Attack, kept: Attempted) -> list[Row]:
        """The attack's row for each request, the same utility beside each."""
        alarm = self.config.robustness.alarm
        alarms = (kept.weights >= alarm).any(1).float().tolist()
        utility = {
            "false_alarm": mean_of(alarms),
            "false_alarm_interval": ends_of(alarms),
            "utility": mean_of(self.correct(kept, self.utility, kept.weights)),
            "base_utility": mean_of(self.correct(kept, self.utility, torch.zeros_like(kept.weights))),
        }
        table = []
        for request in self.requests:
            asked = self.rows_of(request)
            attempted = self.attempt(attack, asked)
            caught = attempted.weights[:, self.model.ids.index(request.id)] >= alarm
            table.append(
                {
                    **self.leak(request, attempted, asked, attempted.weights),
                    "caught": mean_of(caught.float().tolist()),
                    **utility,
                }
            )
        return table

    def at_weights(self, *, always_on: bool) -> list[Row]:
        """Takes the gate out of the way: no adapter acts, or a request's own one acts on every prompt."""
        plain = TEXT_ATTACKS["none"]
        kept, table = self.attempt(plain, self.utility), []
        base = mean_of(self.correct(kept, self.utility, torch.zeros_like(kept.weights)))
        for number, request in ((self.model.ids.index(request.id), request) for request in self.requests):
            asked = self.rows_of(request)
            attempted = self.attempt(plain, asked)

            def weights(like: Tensor, number: int = number) -> Tensor:
                return one_hot(len(like), like.shape[1], number) if always_on else torch.zeros_like(like)

            utility = mean_of(self.correct(kept, self.utility, weights(kept.weights)))
            row = self.leak(request, attempted, asked, weights(attempted.weights))
            table.append({**row, "utility": utility, "base_utility": base})
        return table

    def by_relearning(self, count: int) -> list[Row]:
        """Fine-tunes on the first rows of a request, and asks for facts that these rows do not hold."""
        return [row for request in self.requests if (row := self.relearn(request, count)) is not None]

    def relearn(self, request: UnlearningRequest, count: int) -> Row | None:
        """One request's relearning; None where its rows hold no other facts than those trained on."""
        known = request.rows[:count]
        told = {row.answer for row in known}
        asked = spread([row for row in request.rows if row.answer not in told], self.config.robustness.rows)
        if not asked:
            logger.warning("  %s: %d rows tell all of its facts; none is left to ask for", request.id, count)
            return None
        attempted = self.attempt(TEXT_ATTACKS["none"], asked)
        before = self.leak(request, attempted, asked, attempted.weights)
        seed = stage_seed(self.seed, f"relearn-{count}", request.id)
        zeros = torch.zeros_like(attempted.weights)
        with relearned(self.model, request.id, known, self.config.robustness, seed):
            leak = self.correct(attempted, asked, zeros)
        return {**before, "leak": mean_of(leak), "leak_interval": ends_of(leak), "trained_rows": len(known)}

    def rows_of(self, request: UnlearningRequest) -> Sequence[QuestionAnswer]:
        """The rows of a request that are asked."""
        return spread(request.rows, self.config.robustness.rows)

    def attempt(self, attack: Attack, rows: Sequence[QuestionAnswer]) -> Attempted:
        """Attacks some rows, and asks the gate."""
        material = Material(self.config.robustness, self.utility)
        pairs = [(attempt, owner) for owner, row in enumerate(rows) for attempt in attack(row, material)]
        attempts, owners = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
        return prepare(self.model, attempts, owners, self.config.max_new_tokens, self.runner)

    def correct(
        self, attempted: Attempted, rows: Sequence[QuestionAnswer], weights: Tensor
    ) -> list[float | None]:
        """Whether each attempt's answer says the truth."""
        answers = attempted.answers(self.model, weights, self.config.max_new_tokens, self.runner)
        return list(accuracy(answers, [rows[owner].answer for owner in attempted.owners]))

    def leak(
        self,
        request: UnlearningRequest,
        attempted: Attempted,
        rows: Sequence[QuestionAnswer],
        weights: Tensor,
    ) -> Row:
        """What a request gives away, by the gated and by the base model."""
        leak = self.correct(attempted, rows, weights)
        base = self.correct(attempted, rows, torch.zeros_like(weights))
        return {
            "request": request.id,
            "leak": mean_of(leak),
            "leak_interval": ends_of(leak),
            "base_leak": mean_of(base),
            "attempts": len(attempted.rows),
            "too_long": attempted.too_long,
            "shortened": attempted.shortened,
        }


def as_result(work: Callable[[], list[Row]]) -> dict[str, Any]:
    """An attack's rows as one JSON object."""
    return {"rows": work()}


COLUMNS = ("caught", "false_alarm", "utility", "base_utility")


def as_table(table: Sequence[Row]) -> list[str]:
    """Returns the lines of a markdown table."""
    lines = [
        "| attack | request | leak | base model | caught | false alarms | utility | its base |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in table:
        low, high, _ = row["leak_interval"] or (0.0, 0.0, "")
        leak = "-" if row["leak"] is None else f"{row['leak']:.2f} [{low:.2f}, {high:.2f}]"
        cells = [row["attack"], row["request"], leak, number(row["base_leak"])]
        lines.append(f"| {' | '.join([*cells, *(number(row.get(name)) for name in COLUMNS)])} |")
    return lines


def number(value: float | None) -> str:
    """Two decimals, or a dash for nothing."""
    return "-" if value is None else f"{value:.2f}"
