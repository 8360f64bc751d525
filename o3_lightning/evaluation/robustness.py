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

from o3_lightning.common.errors import InputError
from o3_lightning.common.plain import mean_of
from o3_lightning.data.stream import RequestStream
from o3_lightning.evaluation.asking import PLAIN, Asker, Row
from o3_lightning.evaluation.attacks import TEXT_ATTACKS, Attack
from o3_lightning.evaluation.config import EvaluationConfig
from o3_lightning.evaluation.evaluate import EvaluationContext, ends_of
from o3_lightning.evaluation.passes import BatchRunner
from o3_lightning.evaluation.prepared_attacks import Attempted, one_hot
from o3_lightning.evaluation.quantising import has_real, quantised
from o3_lightning.evaluation.weight_attacks import Tampering
from o3_lightning.gating.model import GatedModel

__all__ = ["Robustness", "as_table"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Robustness:
    """Attacks one gated model.

    Args:
        model: has at least one request.
        stream: the requests and the utility splits.
        config: which attacks, how many rows, how long answers may be.
        context: other processes, and attacks that are finished.
        seed: of the attacker's training.

    Raises:
        InputError: the model has no request of the stream, or there is no utility split to compare with.
    """

    model: GatedModel
    stream: RequestStream
    config: EvaluationConfig
    context: EvaluationContext
    seed: int

    def __post_init__(self) -> None:
        if not self.asker.requests:
            raise InputError("there is nothing to attack: the store holds no request", field="robustness")
        if not self.stream.utility:
            raise InputError("attacks need a utility split to compare with", field="robustness")

    @cached_property
    def asker(self) -> Asker:
        """Asks the model, batches shared between the processes."""
        runner = BatchRunner(self.config.batch_size, self.context.processes, "attack")
        return Asker(self.model, self.stream, self.config, runner)

    def run(self) -> list[Row]:
        """Returns one row per attack and request, in the order of the configuration.

        Returns:
            Rows with `attack`, `request`, `leak` (share of answers that say the truth), `leak_interval`
            (Wilson, 95 %), `base_leak` (the base model under the same attack), `caught` (share of attempts
            that the request's detector catches), `false_alarm` with `false_alarm_interval` (share of utility
            prompts, attacked in the same way, that any detector catches), `utility` and `base_utility`
            (share of these that are answered right, gated and by the base model), `attempts`, `too_long` and
            `shortened`, and what `Tampering` adds. None where an attack has no such thing.
        """
        table: list[Row] = []
        for name, work in self.plan():
            logger.info("  attack: %s", name)
            result = self.context.resume(name, partial(as_result, work))
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
            elif name.startswith("quantise"):
                planned += [self.quantising(name, bits) for bits in robust.bits]
            else:
                work = Tampering(self.asker, self.seed).relearnt
                planned += [(f"relearn_{rows}_rows", partial(work, rows)) for rows in robust.relearn_rows]
        return planned

    def by_text(self, attack: Attack) -> list[Row]:
        """Attacks the wording of every prompt."""
        kept = self.asker.attempt(attack, self.asker.utility)
        return self.rows(attack, kept)

    def quantising(self, name: str, bits: int) -> tuple[str, Callable[[], list[Row]]]:
        """An attack with fewer bits; the name tells one that only rounds."""
        simulated = self.config.robustness.quantiser == "simulated" or not has_real(self.model, bits)
        merged = Tampering(self.asker, self.seed).in_fewer_bits
        work = self.by_bits if name == "quantise" else merged
        named = f"{name}_{bits}_bits{'_simulated' if simulated else ''}"
        return named, partial(work, bits, simulated=simulated)

    def by_bits(self, bits: int, *, simulated: bool) -> list[Row]:
        """Asks plain questions of a base model with fewer bits."""
        with quantised(self.model, bits, simulated=simulated):
            return self.by_text(PLAIN)

    def rows(self, attack: Attack, kept: Attempted) -> list[Row]:
        """The attack's row for each request, the same utility beside each."""
        asker, alarm = self.asker, self.config.robustness.alarm
        alarms = (kept.weights >= alarm).any(1).float().tolist()
        utility = {
            "false_alarm": mean_of(alarms),
            "false_alarm_interval": ends_of(alarms),
            "utility": mean_of(asker.correct(kept, asker.utility, kept.weights)),
            "base_utility": mean_of(asker.correct(kept, asker.utility, torch.zeros_like(kept.weights))),
        }
        table = []
        for request in asker.requests:
            asked = asker.rows_of(request)
            attempted = asker.attempt(attack, asked)
            caught = attempted.weights[:, self.model.ids.index(request.id)] >= alarm
            table.append(
                {
                    **asker.leak(request, attempted, asked, attempted.weights),
                    "caught": mean_of(caught.float().tolist()),
                    **utility,
                }
            )
        return table

    def at_weights(self, *, always_on: bool) -> list[Row]:
        """Takes the gate out of the way: no adapter acts, or a request's own one acts on every prompt."""
        asker, ids = self.asker, self.model.ids
        kept, table = asker.attempt(PLAIN, asker.utility), []
        base = mean_of(asker.correct(kept, asker.utility, torch.zeros_like(kept.weights)))
        for number, request in ((ids.index(request.id), request) for request in asker.requests):
            asked = asker.rows_of(request)
            attempted = asker.attempt(PLAIN, asked)

            def weights(like: Tensor, number: int = number) -> Tensor:
                return one_hot(len(like), like.shape[1], number) if always_on else torch.zeros_like(like)

            utility = mean_of(asker.correct(kept, asker.utility, weights(kept.weights)))
            row = asker.leak(request, attempted, asked, weights(attempted.weights))
            table.append({**row, "utility": utility, "base_utility": base})
        return table


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
