"""Settings of the attacks on a gated model."""

from collections.abc import Sequence
from dataclasses import dataclass

from o3_lightning.common.checks import AT_LEAST_0, AT_LEAST_1, check_ranges, refuse

MEMBERS = ("development", "test")
WEIGHT_ATTACKS = ("adapter_off", "adapter_always_on", "quantise", "quantise_merged", "relearn")
QUANTISERS = ("auto", "gguf", "simulated")
SECTION = "evaluation.robustness"


@dataclass(frozen=True)
class RobustnessConfig:
    """Settings of `evaluate --robustness true`.

    Args:
        kinds: kinds of prompt attacks, or groups of kinds, from the registry `o3_lightning.attacks`
            (installed packages and plug-ins add theirs); empty for all kinds.
        members: "development" (settings may be tuned on it), "test" (nothing may be tuned on it), or both.
        weight_attacks: any of "adapter_off", "adapter_always_on", "quantise" (the base model's weights),
            "quantise_merged" (those with the request's adapter merged, without a gate) and "relearn" (on
            the merged weights); may be empty.
        rows: largest number of prompts of each request and utility split per attack; 0 for all.
        bits: precisions of "quantise" and "quantise_merged", each 2 to 16.
        quantiser: "auto" uses bitsandbytes for 4 bits (NF4) and 8 bits (LLM.int8()) where it is installed;
            "gguf" stores them as GGUF files do (Q4_0, Q8_0) with the package gguf. Otherwise, and with
            "simulated", weights are rounded; the attack's name says how.
        relearn_rows: numbers of forget rows that "relearn" trains on, one attack each, 1 or more; whole
            facts, in random order.
        relearn_other_rows: rows of the utility splits that it also trains on, 0 or more; without them a
            small model forgets everything else during training.
        relearn_epochs: passes over these rows, 1 or more.
        relearn_checks: number of measurements, evenly spaced over the epochs, from 1 to the number of
            epochs; the one with the largest leak over all learning rates counts.
        relearn_learning_rates: of AdamW, each above 0, tried one after the other. O3 relearns at 3e-4 on a
            7B model; small models need more.
        relearn_rank: rank of the attacker's own LoRA, 1 or more.
        relearn_batch_size: rows per step, 1 or more.
        alarm: a prompt with a weight of at least this, in (0, 1], counts as caught, or as a false alarm if
            it belongs to no request.

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
        positive = ("relearn_epochs", "relearn_checks", "relearn_rank", "relearn_batch_size")
        ranges = {"rows": AT_LEAST_0, "relearn_other_rows": AT_LEAST_0, **dict.fromkeys(positive, AT_LEAST_1)}
        check_ranges(self, SECTION, **ranges)
        check_names(SECTION, "members", self.members, MEMBERS)
        check_names(SECTION, "weight_attacks", self.weight_attacks or WEIGHT_ATTACKS, WEIGHT_ATTACKS)
        check_names(SECTION, "quantiser", (self.quantiser,), QUANTISERS)
        rates = self.relearn_learning_rates
        for name, good, expected in (
            ("bits", all(2 <= bits <= 16 for bits in self.bits), "numbers from 2 to 16"),
            ("relearn_rows", all(rows >= 1 for rows in self.relearn_rows), "numbers of 1 or more"),
            ("alarm", 0 < self.alarm <= 1, "a share in (0, 1]"),
            ("relearn_learning_rates", rates and all(rate > 0 for rate in rates), "numbers above 0"),
            ("relearn_checks", self.relearn_checks <= self.relearn_epochs, "no more than the epochs"),
        ):
            if not good:
                refuse(SECTION, name, expected, getattr(self, name))


def check_names(section: str, field: str, names: Sequence[str], known: Sequence[str]) -> None:
    """Refuses an empty list and unknown names."""
    unknown = ", ".join(name for name in names if name not in known)
    if unknown or not names:
        refuse(section, field, f"some of {', '.join(known)}", unknown or "none")
