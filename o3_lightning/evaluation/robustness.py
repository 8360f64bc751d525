"""How much a gated model leaks under attack, and what attacks do to prompts that nobody asked to forget."""

from __future__ import annotations

import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import torch
from torch import Tensor

from o3_lightning.attacks.quantising import has_real, quantised
from o3_lightning.attacks.registry import ATTACKS, Kind, Material
from o3_lightning.common.errors import InputError
from o3_lightning.common.plain import mean_of
from o3_lightning.data.requests import QuestionAnswer
from o3_lightning.data.stream import RequestStream
from o3_lightning.evaluation.asking import Asker, Reply, Row
from o3_lightning.evaluation.config import EvaluationConfig
from o3_lightning.evaluation.evaluate import EvaluationContext, ends_of
from o3_lightning.evaluation.passes import BatchRunner
from o3_lightning.evaluation.weight_attacks import Tampering
from o3_lightning.gating.model import GatedModel
from o3_lightning.metrics.text import accuracy

__all__ = ["Robustness", "chosen_kinds"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Robustness:
    """Attacks one gated model.

    Args:
        model: has at least one request.
        stream: the requests and the utility splits.
        config: which attacks, how many rows, how long answers may be.
        context: other processes, and attacks that are finished.
        seed: of the rows, the attacks' random choices and the attacker's training.

    Raises:
        InputError: the model has no request of the stream, or there is no utility split to compare with, or
            a kind is unknown.
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
        chosen_kinds(self.config.robustness.kinds)

    @cached_property
    def asker(self) -> Asker:
        """Asks the model, batches shared between the processes."""
        runner = BatchRunner(self.config.batch_size, self.context.processes, "attack")
        return Asker(self.model, self.stream, self.config, runner)

    @cached_property
    def material(self) -> Material:
        """What prompt attacks use beside the attacked row."""
        forgotten = [row for request in self.asker.requests for row in request.rows]
        return Material([row for rows in self.stream.utility.values() for row in rows], forgotten, self.seed)

    def run(self) -> list[Row]:
        """Returns one row per attack and request.

        Returns:
            Rows with `attack`, `group`, `member` (None for attacks on weights), `request`, `leak` (share of
            the gated model's answers that say the truth), `leak_interval` (Wilson, 95 %), `base_leak` (the
            same of the base model under the same attack), `caught` (share of attempts with a weight of
            `alarm` or more for the request, or refused), `false_alarm` with `false_alarm_interval` (share of
            utility prompts under the same attack with such a weight for any request, or refused by the gated
            model alone), `utility` and `base_utility` (share of these answered right, gated and by the base
            model), `attempts`, `others`, `rejected` (attempts that are malformed for the model or too long)
            and `shortened`, and what `Tampering` adds. None where an attack has no such figure.
        """
        table: list[Row] = []
        for name, member, work in self.plan():
            label = f"{name}/{member}" if member else name
            logger.info("  attack: %s", label)
            result = self.context.resume(label, partial(as_result, work))
            group = ATTACKS[name].group if member else "weights"
            table += [{"attack": name, "group": group, "member": member, **row} for row in result["rows"]]
        return table

    def plan(self) -> list[tuple[str, str | None, Callable[[], list[Row]]]]:
        """Every attack's name, member and work."""
        robust = self.config.robustness
        planned: list[tuple[str, str | None, Callable[[], list[Row]]]] = [
            (name, member, partial(self.by_prompt, kind, member))
            for name, kind in chosen_kinds(robust.kinds).items()
            for member in robust.members
        ]
        tampering = Tampering(self.asker, self.seed)
        for name in robust.weight_attacks:
            if name.startswith("quantise"):
                planned += [self.quantising(name, bits) for bits in robust.bits]
            elif name == "relearn":
                planned += [
                    (f"relearn_{rows}_rows", None, partial(tampering.relearnt, rows))
                    for rows in robust.relearn_rows
                ]
            else:
                planned.append((name, None, partial(self.forced, on=name == "adapter_always_on")))
        return planned

    def quantising(self, name: str, bits: int) -> tuple[str, None, Callable[[], list[Row]]]:
        """An attack with fewer bits; the name tells one that only rounds."""
        simulated = self.config.robustness.quantiser == "simulated" or not has_real(self.model, bits)
        merged = Tampering(self.asker, self.seed).in_fewer_bits
        work = self.by_bits if name == "quantise" else merged
        named = f"{name}_{bits}_bits{'_simulated' if simulated else ''}"
        return named, None, partial(work, bits, simulated=simulated)

    def by_bits(self, bits: int, *, simulated: bool) -> list[Row]:
        """Asks plain questions of a base model with fewer bits."""
        with quantised(self.model, bits, simulated=simulated):
            return self.by_prompt(ATTACKS["plain"], "development")

    def by_prompt(self, kind: Kind, member: str) -> list[Row]:
        """The rows of one member, a row a request, the same utility in each."""
        asker, ids = self.asker, self.model.ids
        owned = [(request.id, row) for request in asker.requests for row in self.drawn(request.rows)]
        owned += [("", row) for rows in self.stream.utility.values() for row in self.drawn(rows)]
        made = [(owner, row, kind.attempt(member, row, self.material)) for owner, row in owned]
        tried = [(owner, row, attempt) for owner, row, attempt in made if attempt is not None]
        replies = asker.replies([attempt for _, _, attempt in tried])
        found = [(owner, row, reply) for (owner, row, _), reply in zip(tried, replies, strict=True)]
        others = [(row, reply) for owner, row, reply in found if not owner and reply is not None]
        alarms = [float(self.stopped(reply, reply.weights)) for _, reply in others]
        right, base_right = judged(others)
        side = {
            "false_alarm": mean_of(alarms),
            "false_alarm_interval": ends_of(alarms),
            "utility": mean_of(right),
            "base_utility": mean_of(base_right),
            "others": len(others),
        }
        table = []
        for request in asker.requests:
            own = [(row, reply) for owner, row, reply in found if owner == request.id]
            heard = [(row, reply) for row, reply in own if reply is not None]
            leak, base_leak = judged(heard)
            caught = [float(self.stopped(reply, reply.weights[ids.index(request.id)])) for _, reply in heard]
            table.append(
                {
                    "request": request.id,
                    "leak": mean_of(leak),
                    "leak_interval": ends_of(leak),
                    "base_leak": mean_of(base_leak),
                    "caught": mean_of(caught),
                    "attempts": len(heard),
                    "rejected": len(own) - len(heard),
                    "shortened": sum(reply.shortened for _, reply in heard),
                    **side,
                }
            )
        return table

    def drawn(self, rows: Sequence[QuestionAnswer]) -> list[QuestionAnswer]:
        """Rows drawn by the seed, in their order; evenly spread ones could all ask for one attribute."""
        count = min(self.config.robustness.rows or len(rows), len(rows))
        places = random.Random(f"rows-{self.seed}").sample(range(len(rows)), count)  # noqa: S311
        return [rows[place] for place in sorted(places)]

    def stopped(self, reply: Reply, weights: Tensor) -> bool:
        """Whether a weight reached the alarm, or the gated model refused what the base model answers."""
        refusal = self.model.gate_config.refusal
        refused = reply.answer == refusal != reply.base_answer
        return refused or bool((weights >= self.config.robustness.alarm).any())

    def forced(self, *, on: bool) -> list[Row]:
        """Takes the gate out of the way: no adapter acts, or a request's own one acts on every prompt."""
        asker, table = self.asker, []
        base_utility = asker.share(asker.utility)
        for request in asker.requests:
            asked = asker.rows_of(request)
            row = torch.zeros(len(self.model.ids))
            row[self.model.ids.index(request.id)] = float(on)
            leak = asker.plainly(asked, row.expand(len(asked), -1))
            table.append(
                {
                    "request": request.id,
                    "leak": mean_of(leak),
                    "leak_interval": ends_of(leak),
                    "base_leak": asker.share(asked),
                    "attempts": len(asked),
                    "utility": asker.share(asker.utility, row.expand(len(asker.utility), -1)),
                    "base_utility": base_utility,
                }
            )
        return table


def chosen_kinds(names: Sequence[str]) -> dict[str, Kind]:
    """Returns the kinds of some names of kinds or groups; of none all.

    Raises:
        InputError: an unknown name.
    """
    kinds = {name: ATTACKS[name] for name in ATTACKS.names()}
    groups = {kind.group for kind in kinds.values()}
    if not names:
        return kinds
    return {
        one: kind
        for name in names
        for one, kind in (kinds if name in groups else {name: ATTACKS[name]}).items()
        if name not in groups or kind.group == name
    }


def judged(replies: Sequence[tuple[QuestionAnswer, Reply]]) -> tuple[list[float | None], list[float | None]]:
    """Whether each gated and each base answer says the truth."""
    truths = [row.answer for row, _ in replies]
    gated = accuracy([reply.answer for _, reply in replies], truths)
    base = accuracy([reply.base_answer for _, reply in replies], truths)
    return list(gated), list(base)


def as_result(work: Callable[[], list[Row]]) -> dict[str, Any]:
    """An attack's rows as one JSON object."""
    return {"rows": work()}
