"""Leak of a request's unlearned weights after quantisation or further training.

Both remove the gate first: the request's adapter is merged into the base model's weights.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from o3_lightning.attacks.quantising import quantised
from o3_lightning.attacks.relearning import known_rows, merged, relearning
from o3_lightning.common.plain import evenly_spaced, mean_of
from o3_lightning.common.seeds import stage_seed
from o3_lightning.data.requests import QuestionAnswer, UnlearningRequest
from o3_lightning.evaluation.asking import Asker, Row
from o3_lightning.evaluation.evaluate import ends_of

__all__ = ["Tampering"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tampering:
    """Attacks the weights of one request after the other.

    Args:
        asker: asks the questions.
        seed: of the attacker's training.
    """

    asker: Asker
    seed: int

    @property
    def others(self) -> list[QuestionAnswer]:
        """Rows of the utility splits that an attacker may train on: every second, so that some are left."""
        return [row for rows in self.asker.stream.utility.values() for row in rows][1::2]

    def in_fewer_bits(self, bits: int, *, simulated: bool) -> list[Row]:
        """Returns one row per request, measured at `bits` bits; see `quantised`."""
        asker, table = self.asker, []
        base_utility = asker.share(asker.utility)
        for request in asker.requests:
            asked = asker.rows_of(request)
            row = self.before(request, asked)
            with merged(asker.model, request.id), quantised(asker.model, bits, simulated=simulated):
                leak, utility = asker.plainly(asked), asker.share(asker.utility)
            changed = {"leak": mean_of(leak), "leak_interval": ends_of(leak)}
            table.append({**row, **changed, "utility": utility, "base_utility": base_utility})
        return table

    def before(self, request: UnlearningRequest, asked: Sequence[QuestionAnswer]) -> Row:
        """What the base model answers to plain questions."""
        return {"request": request.id, "base_leak": self.asker.share(asked), "attempts": len(asked)}

    def relearnt(self, count: int) -> list[Row]:
        """Returns one row per request: the attacker trains on some forget rows and is asked for other facts.

        Args:
            count: forget rows to train on.

        Returns:
            The measurement with the largest leak, with `learnt` (accuracy on the trained forget rows),
            `utility` (on rows that were not trained on), `learning_rate`, `epochs`, `loss` and
            `trained_rows`. A request is left out if its rows state no fact beyond those trained on.
        """
        return [row for request in self.asker.requests if (row := self.relearn(request, count)) is not None]

    def relearn(self, request: UnlearningRequest, count: int) -> Row | None:
        """One request's relearning; None if its rows state no fact beyond those trained on."""
        robust = self.asker.config.robustness
        seed = stage_seed(self.seed, f"relearn-{count}", request.id)
        known = known_rows(request, count, seed)
        told = {row.answer for row in known}
        asked = self.asker.some_of([row for row in request.rows if row.answer not in told])
        if not asked:
            logger.warning(
                "  %s: %d rows state all of its facts; there is nothing left to ask", request.id, count
            )
            return None
        beside = evenly_spaced(self.others, robust.relearn_other_rows)
        rest = [row for row in self.asker.utility if row not in beside]
        row = self.before(request, asked)
        looks = [
            look
            for rate in robust.relearn_learning_rates
            for look in self.looks(request.id, (known, beside, asked, rest), rate, seed)
        ]
        worst = max(looks, key=lambda look: (look["leak"], look["learnt"]))
        return {**row, **worst, "base_utility": self.asker.share(rest), "trained_rows": len(known)}

    def looks(
        self, request: str, rows: Sequence[Sequence[QuestionAnswer]], rate: float, seed: int
    ) -> Iterator[Row]:
        """The measurements at one learning rate."""
        known, beside, asked, rest = rows
        robust = self.asker.config.robustness
        looks = range(1, robust.relearn_checks + 1)
        with relearning(self.asker.model, request, [*known, *beside], robust, rate, seed) as attacker:
            for epochs in (robust.relearn_epochs * look // robust.relearn_checks for look in looks):
                loss = attacker.train(epochs - attacker.epochs)
                leak = self.asker.plainly(asked)
                yield {
                    "leak": mean_of(leak),
                    "leak_interval": ends_of(leak),
                    "learnt": self.asker.share(known),
                    "utility": self.asker.share(rest),
                    "learning_rate": rate,
                    "epochs": epochs,
                    "loss": loss,
                }
