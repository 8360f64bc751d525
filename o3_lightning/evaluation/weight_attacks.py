"""What comes out of a request's unlearned weights when they are stored in fewer bits, or trained further.

Both take the gate away first: the request's adapter is folded into the base model's weights.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from o3_lightning.common.plain import evenly_spaced, mean_of
from o3_lightning.common.seeds import stage_seed
from o3_lightning.data.requests import QuestionAnswer, UnlearningRequest
from o3_lightning.evaluation.asking import Asker, Row
from o3_lightning.evaluation.evaluate import ends_of
from o3_lightning.evaluation.quantising import quantised
from o3_lightning.evaluation.relearning import known_rows, merged, relearning

__all__ = ["Tampering"]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Tampering:
    """Attacks the weights of one request after the other.

    Args:
        asker: asks them.
        seed: of the attacker's training.
    """

    asker: Asker
    seed: int

    @property
    def others(self) -> list[QuestionAnswer]:
        """Rows of the utility splits that an attacker may train on: every second, so that some are left."""
        return [row for rows in self.asker.stream.utility.values() for row in rows][1::2]

    def in_fewer_bits(self, bits: int, *, simulated: bool) -> list[Row]:
        """Returns a row a request; see `quantised`."""
        asker, table = self.asker, []
        base_utility = asker.share(asker.utility)
        for request in asker.requests:
            asked = asker.rows_of(request)
            row = asker.plainly(request, asked)
            with merged(asker.model, request.id), quantised(asker.model, bits, simulated=simulated):
                leak, utility = asker.ungated(asked), asker.share(asker.utility)
            changed = {"leak": mean_of(leak), "leak_interval": ends_of(leak)}
            table.append({**row, **changed, "utility": utility, "base_utility": base_utility})
        return table

    def relearnt(self, count: int) -> list[Row]:
        """Returns a row a request: some rows are trained on, the facts that these do not tell are asked for.

        Args:
            count: of the rows.

        Returns:
            The look that leaked most, with `learnt` (share of the trained forget rows that is answered
            right), `utility` (of rows that were not trained on), `learning_rate`, `epochs`, `loss` and
            `trained_rows`. A request whose facts are all told has no row.
        """
        return [row for request in self.asker.requests if (row := self.relearn(request, count)) is not None]

    def relearn(self, request: UnlearningRequest, count: int) -> Row | None:
        """One request's relearning; None where its rows hold no other facts than those trained on."""
        robust = self.asker.config.robustness
        seed = stage_seed(self.seed, f"relearn-{count}", request.id)
        known = known_rows(request, count, seed)
        told = {row.answer for row in known}
        asked = self.asker.some_of([row for row in request.rows if row.answer not in told])
        if not asked:
            logger.warning("  %s: %d rows tell all of its facts; none is left to ask for", request.id, count)
            return None
        beside = evenly_spaced(self.others, robust.relearn_other_rows)
        rest = [row for row in self.asker.utility if row not in beside]
        row = self.asker.plainly(request, asked)
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
        """What an attacker at one rate finds whenever he looks."""
        known, beside, asked, rest = rows
        robust = self.asker.config.robustness
        looks = range(1, robust.relearn_checks + 1)
        with relearning(self.asker.model, request, [*known, *beside], robust, rate, seed) as attacker:
            for epochs in (robust.relearn_epochs * look // robust.relearn_checks for look in looks):
                loss = attacker.train(epochs - attacker.epochs)
                leak = self.asker.ungated(asked)
                yield {
                    "leak": mean_of(leak),
                    "leak_interval": ends_of(leak),
                    "learnt": self.asker.share(known),
                    "utility": self.asker.share(rest),
                    "learning_rate": rate,
                    "epochs": epochs,
                    "loss": loss,
                }
