"""Settings of the attacks on a gated model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from o3_lightning.common.errors import InputError

__all__ = ["WEIGHT_ATTACKS", "RobustnessConfig"]

MEMBERS = ("development", "test")
WEIGHT_ATTACKS = ("adapter_off", "adapter_always_on", "quantise", "quantise_merged", "relearn")
QUANTISERS = ("auto", "simulated")


@dataclass(frozen=True)
class RobustnessConfig:
    """What `evaluate --robustness` tries.

    Args:
        kinds: kinds of prompt attacks, or groups of kinds, out of the registry `o3_lightning.attacks` (see
            `o3_lightning/attacks/`; installed packages and plug-ins add theirs); empty takes all kinds.
        members: "development", on which settings may be tuned, "test", on which nothing may be tuned, or
            both.
        weight_attacks: any of "adapter_off", "adapter_always_on", "quantise" (the base model's weights),
            "quantise_merged" (those with the request's adapter merged, without a gate) and "relearn" (on
            the merged weights); may be empty.
        rows: prompts of each request, and of each utility split, per attack at most; 0 takes all.
        bits: precisions of "quantise" and "quantise_merged", each 2 to 16.
        quantiser: "auto" takes bitsandbytes for 4 bits (NF4) and 8 bits (LLM.int8()) where it is installed;
            otherwise, and with "simulated", weights are rounded, and the attack's name says so.
        relearn_rows: forget rows that "relearn" trains on, one attack each, 1 upward; whole facts, drawn.
        relearn_other_rows: rows of the utility splits that it also trains on, 0 upward; without them a
            small model forgets everything else on the way.
        relearn_epochs: passes over these rows, 1 upward.
        relearn_checks: how often the attacked model is measured, evenly spread over the epochs, from 1 to
            the number of epochs; the measurement with the largest leak over all rates counts.
        relearn_learning_rates: of AdamW, each above 0; the attacker tries all. O3 relearns at 3e-4 on a 7B
            model, small models need more.
        relearn_rank: rank of the attacker's own LoRA, 1 upward.
        relearn_batch_size: rows a step, 1 upward.
        alarm: a prompt with a weight of at least this, in (0, 1], counts as caught, or as a false alarm
            where nobody asked to forget its subject.

    Raises:
        InputError: an unknown attack or a number outside its range.
    """

    kinds: tuple[str, ...] = ()
    members: tuple[str, ...] = MEMBERS
    weight_attacks: tuple[str, ...] = WEIGHT_ATTACKS
    rows: int = 4
    bits: tuple[int, ...] = (8, 4)
    quantiser: str = "auto"
    relearn_rows: tuple[int, ...] = (10, 50)
    relearn_other_rows: int = 40
    relearn_epochs: int = 10
    relearn_checks: int = 2
    relearn_learning_rates: tuple[float, ...] = (3e-4, 1e-3, 2e-3, 5e-3)
    relearn_rank: int = 8
    relearn_batch_size: int = 12
    alarm: float = 0.5

    def __post_init__(self) -> None:
        check_names(self.members, MEMBERS, "members")
        check_names(self.weight_attacks or WEIGHT_ATTACKS, WEIGHT_ATTACKS, "weight_attacks")
        check_names((self.quantiser,), QUANTISERS, "quantiser")
        least = {"rows": 0, "relearn_other_rows": 0, "relearn_epochs": 1, "relearn_checks": 1}
        for name, low in {**least, "relearn_rank": 1, "relearn_batch_size": 1}.items():
            check(getattr(self, name) >= low, f"{low} or more", getattr(self, name), name)
        check(all(2 <= bits <= 16 for bits in self.bits), "numbers from 2 to 16", self.bits, "bits")
        good = all(rows >= 1 for rows in self.relearn_rows)
        check(good, "numbers of 1 or more", self.relearn_rows, "relearn_rows")
        check(0 < self.alarm <= 1, "a share in (0, 1]", self.alarm, "alarm")
        rates = self.relearn_learning_rates
        good = bool(rates) and all(rate > 0 for rate in rates)
        check(good, "numbers above 0", rates, "relearn_learning_rates")
        good = self.relearn_checks <= self.relearn_epochs
        check(good, "no more than the epochs", self.relearn_checks, "relearn_checks")


def check_names(names: Sequence[str], known: Sequence[str], name: str) -> None:
    """Refuses an empty list and unknown names."""
    unknown = ", ".join(one for one in names if one not in known)
    check(bool(names) and not unknown, f"some of {', '.join(known)}", unknown or "none", name)


def check(good: bool, expected: str, got: object, name: str) -> None:
    """Refuses a value that is not good."""
    if not good:
        raise InputError(f"expected {expected}, got {got}", field=f"evaluation.robustness.{name}")
