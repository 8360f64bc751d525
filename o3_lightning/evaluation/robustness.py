"""Leak of a gated model under attack, and the side effects of the same attacks on utility prompts."""

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial, wraps
from typing import Any

import torch
from torch import Tensor

from o3_lightning.attacks.quantising import PACKAGE, choose_form, quantised
from o3_lightning.attacks.registry import ATTACKS, Kind, Material
from o3_lightning.attacks.relearning import known_rows, merged, relearning
from o3_lightning.common.errors import InputError
from o3_lightning.common.plain import evenly_spaced, mean_of
from o3_lightning.common.seeds import stage_seed
from o3_lightning.data.requests import QuestionAnswer, UnlearningRequest
from o3_lightning.data.stream import RequestStream
from o3_lightning.evaluation.asking import Asker, Reply, Row, leak_of
from o3_lightning.evaluation.config import EvaluationConfig
from o3_lightning.evaluation.evaluate import EvaluationContext
from o3_lightning.evaluation.passes import BatchRunner
from o3_lightning.evaluation.splits import sample_rows
from o3_lightning.gating.model import GatedModel
from o3_lightning.metrics.aggregate import confidence_interval
from o3_lightning.metrics.text import accuracy

logger = logging.getLogger(__name__)

Planned = tuple[str, str | None, Callable[[], list[Row]]]


def unchecked(attack: Callable[..., list[Row]]) -> Callable[..., list[Row]]:
    """Lets a method of `WeightAttacks` run without the check of answers."""

    @wraps(attack)
    def run(self: "WeightAttacks", *given: Any, **named: Any) -> list[Row]:
        model = self.asker.model
        config, model.gate_config = model.gate_config, replace(model.gate_config, check_answers="off")
        try:
            return attack(self, *given, **named)
        finally:
            model.gate_config = config

    return run


@dataclass(frozen=True)
class WeightAttacks:
    """Attacks on the weights of each request; every method returns one row per request.

    The attacker has no gate, and so none that checks answers.
    """

    asker: Asker
    seed: int

    def before(self, request: UnlearningRequest, asked: Sequence[QuestionAnswer]) -> Row:
        """The part of a row that the base model gives."""
        return {"request": request.id, "base_leak": self.asker.share(asked), "attempts": len(asked)}

    def by_request(self, ask: Callable[[str, Sequence[QuestionAnswer]], Row]) -> list[Row]:
        """One row per request: the base model's part, and what `ask` finds with the request's questions."""
        table, base_utility = [], self.asker.share(self.asker.utility)
        for request in self.asker.requests:
            asked = self.asker.some_of(request.rows)
            row = self.before(request, asked)
            table.append({**row, **ask(request.id, asked), "base_utility": base_utility})
        return table

    @unchecked
    def forced(self, *, on: bool) -> list[Row]:
        """Bypasses the gate: the request's adapter acts on every prompt, or no adapter acts at all."""
        asker = self.asker

        def ask(request: str, asked: Sequence[QuestionAnswer]) -> Row:
            row = torch.zeros(len(asker.model.ids))
            row[asker.model.ids.index(request)] = float(on)
            utility = asker.share(asker.utility, row.expand(len(asker.utility), -1))
            return {**asker.leak(asked, row.expand(len(asked), -1)), "utility": utility}

        return self.by_request(ask)

    @unchecked
    def in_fewer_bits(self, bits: int, form: str) -> list[Row]:
        """Merges the adapter and quantises all weights, see `quantised`."""
        asker = self.asker

        def ask(request: str, asked: Sequence[QuestionAnswer]) -> Row:
            with merged(asker.model, request), quantised(asker.model, bits, form):
                return {**asker.leak(asked), "utility": asker.share(asker.utility)}

        return self.by_request(ask)

    @unchecked
    def relearnt(self, count: int) -> list[Row]:
        """Trains on `count` forget rows and asks for the other facts of the request.

        The measurement with the largest leak counts; it has also `learnt` (accuracy on the trained forget
        rows), `utility` (on rows that were not trained on), `learning_rate`, `epochs`, `loss` and
        `trained_rows`. A request is left out if its rows state no fact beyond those trained on.
        """
        return [row for request in self.asker.requests if (row := self.relearn(request, count)) is not None]

    def relearn(self, request: UnlearningRequest, count: int) -> Row | None:
        """One request's relearning; None if its rows state no fact beyond those trained on."""
        asker, robust = self.asker, self.asker.config.robustness
        seed = stage_seed(self.seed, f"relearn-{count}", request.id)
        known = known_rows(request, count, seed)
        told = {row.answer for row in known}
        asked = asker.some_of([row for row in request.rows if row.answer not in told])
        if not asked:
            logger.warning("  %s: %d rows state all of its facts; no fact is left to ask", request.id, count)
            return None
        # every second utility row may be trained on, so that some are left to ask
        others = [row for rows in asker.stream.utility.values() for row in rows][1::2]
        beside = evenly_spaced(others, robust.relearn_other_rows)
        rest = [row for row in asker.utility if row not in beside]
        row = self.before(request, asked)
        found = [
            measurement
            for rate in robust.relearn_learning_rates
            for measurement in self.measure(request.id, (known, beside, asked, rest), rate, seed)
        ]
        worst = max(found, key=lambda measurement: (measurement["leak"], measurement["learnt"]))
        return {**row, **worst, "base_utility": asker.share(rest), "trained_rows": len(known)}

    def measure(
        self, request: str, rows: Sequence[Sequence[QuestionAnswer]], rate: float, seed: int
    ) -> Iterator[Row]:
        """The measurements at one learning rate."""
        known, beside, asked, rest = rows
        asker, robust = self.asker, self.asker.config.robustness
        with relearning(asker.model, request, [*known, *beside], robust, rate, seed) as attacker:
            for check in range(1, robust.relearn_checks + 1):
                epochs = robust.relearn_epochs * check // robust.relearn_checks
                loss = attacker.train(epochs - attacker.epochs)
                sides = {"learnt": asker.share(known), "utility": asker.share(rest)}
                yield {**asker.leak(asked), **sides, "learning_rate": rate, "epochs": epochs, "loss": loss}


@dataclass(frozen=True)
class Robustness:
    """Attacks one gated model that holds at least one request, under the configured attacks.

    `context` has other processes and results of finished attacks; `seed` decides the rows, the random
    choices of the attacks and the attacker's training.

    Raises:
        InputError: the model has no request of the stream, there is no utility split, or a kind is unknown.
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
        """Asks the model, with batches shared between the processes."""
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
            Rows with `attack`, `group`, `member` (None for attacks on weights), `request`, `attempts`, and

            - `leak`: share of the gated model's answers that contain the truth, with `leak_interval` (95 %);
            - `base_leak`: the same of the base model under the same attack;
            - `caught`: share of attempts with a weight of `alarm` or more for the request, or refused;
            - `false_alarm`, with `false_alarm_interval`: share of utility prompts under the same attack with
              such a weight for any request, or refused by the gated model alone;
            - `utility` and `base_utility`: share of these answered correctly, `others`: their number;
            - `rejected`: attempts that are malformed or too long for the model, `shortened`: shortened ones;
            - what `WeightAttacks` adds.

            A figure that an attack does not have is missing or None.
        """
        table: list[Row] = []
        for name, member, work in self.plan():
            label = f"{name}/{member}" if member else name
            logger.info("  attack: %s", label)

            def attacked(work: Callable[[], list[Row]] = work) -> dict[str, Any]:
                return {"rows": work()}

            result = self.context.resume(label, attacked)
            group = ATTACKS[name].group if member else "weights"
            table += [{"attack": name, "group": group, "member": member, **row} for row in result["rows"]]
        return table

    def plan(self) -> list[Planned]:
        """Every attack's name, member and work."""
        robust, attacks = self.config.robustness, WeightAttacks(self.asker, self.seed)
        planned: list[Planned] = [
            (name, member, partial(self.by_prompt, kind, member))
            for name, kind in chosen_kinds(robust.kinds).items()
            for member in robust.members
        ]
        for name in robust.weight_attacks:
            if name == "relearn":
                planned += [
                    (f"relearn_{rows}_rows", None, partial(attacks.relearnt, rows))
                    for rows in robust.relearn_rows
                ]
            elif name.startswith("quantise"):
                work = self.by_bits if name == "quantise" else attacks.in_fewer_bits
                for bits in robust.bits:
                    form = choose_form(self.model, bits, robust.quantiser)
                    named = f"{name}_{bits}_bits{'' if form == PACKAGE else f'_{form}'}"
                    planned.append((named, None, partial(work, bits, form)))
            else:
                planned.append((name, None, partial(attacks.forced, on=name == "adapter_always_on")))
        return planned

    def by_bits(self, bits: int, form: str) -> list[Row]:
        """Asks plain questions of a base model with fewer bits."""
        with quantised(self.model, bits, form):
            return self.by_prompt(ATTACKS["plain"], "development")

    def by_prompt(self, kind: Kind, member: str) -> list[Row]:
        """One member's row per request; the figures of utility prompts are the same in each."""
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
            "false_alarm_interval": confidence_interval(alarms),
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
                    **leak_of(leak),
                    "base_leak": mean_of(base_leak),
                    "caught": mean_of(caught),
                    "attempts": len(heard),
                    "rejected": len(own) - len(heard),
                    "shortened": sum(reply.shortened for _, reply in heard),
                    **side,
                }
            )
        return table

    def drawn(self, rows: Sequence[QuestionAnswer]) -> Sequence[QuestionAnswer]:
        """Returns rows drawn by the seed."""
        return sample_rows(rows, self.config.robustness.rows, self.seed)

    @cached_property
    def refusal(self) -> str:
        """A refused answer as the model gives it here."""
        return self.model.refusal_text(self.config.max_new_tokens)

    def stopped(self, reply: Reply, weights: Tensor) -> bool:
        """Whether a weight reached the alarm, or the gated model refused what the base model answers."""
        refused = reply.answer == self.refusal != reply.base_answer
        return refused or bool((weights >= self.config.robustness.alarm).any())


def chosen_kinds(names: Sequence[str]) -> dict[str, Kind]:
    """Returns attack kinds by names of kinds or groups; all kinds if no name is given.

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


def judged(replies: Sequence[tuple[QuestionAnswer, Reply]]) -> tuple[list[float], list[float]]:
    """Whether each gated and each base answer contains the truth."""
    truths = [row.truth for row, _ in replies]
    gated = accuracy([reply.answer for _, reply in replies], truths)
    return gated, accuracy([reply.base_answer for _, reply in replies], truths)
