"""The settings of an adapter: shape, training, and orthogonality to earlier adapters."""

from dataclasses import dataclass

from o3_lightning.common.checks import (
    ANY_POSITIVE,
    AT_LEAST_0,
    AT_LEAST_1,
    BELOW_1,
    check_choice,
    check_ranges,
    refuse,
)

MODES = ("per_request", "cumulative", "hard")
SIDES = ("input", "output", "both")
AGAINST = ("all", "last")
OPTIMIZERS = ("adamw", "sophia")
LAST, BEST = KEEPS = ("last", "best")
LORA, FULL = KINDS = ("lora", "full")
ALL_LINEAR = "all-linear"


@dataclass(frozen=True)
class AdapterConfig:
    """Shape and training of an adapter.

    Args:
        kind: "lora", or "full": the whole change of every adapted weight is trained, as in full fine-tuning
            of these layers (embeddings, norms and biases stay). Stored as factors of which the smaller is
            the identity, about twice the size of the weights; `rank` and `alpha` are not read.
        rank: width of the adapter's bottleneck, at least 1; 8 as in O3.
        alpha: scale of the update, times 1/rank; 16 as in O3.
        noise: norm of the random update that a fresh adapter starts with, relative to that of the adapted
            weight, at least 0; merged weights are then harder to repair by relearning.
        dropout: of the adapter's input in training, in [0, 1); 0.05 in the official code, 0 by default so
            that the loss is the same with and without gradient checkpointing.
        targets: suffixes of the adapted layers' names, or "all-linear" alone for every linear layer of the
            model's blocks except experts.
        mode: "per_request" (a fresh adapter, initialised in the orthogonal complement of the earlier
            adapters' input spaces), "cumulative" (continues to train the last adapter, as in the official
            code) or "hard" (stays in the complement exactly, by projection after every step).
        penalty_side: factor that is kept orthogonal: "input" (lora_A, as in the official code), "output"
            (lora_B, as in the paper) or "both"; in "hard" mode the one that is projected.
        penalty_coefficient: weight of the orthogonality penalty, at least 0, 0 for none; 0.1 as in O3.
        penalty_against: "all" earlier requests, as in the official code, or the "last" one, as in the paper.
        optimizer: "adamw", or "sophia" for the second-order baselines of O3 (SOGD, SOPO), of the package
            pytorch-optimizer.
        learning_rate: its peak, above 0; the best of a few values tried on the fictitious authors.
        weight_decay: of the optimizer, at least 0.
        warmup_fraction: part of the steps with a rising rate, in [0, 1), before a linear decay to 0.
        clip: largest gradient norm, above 0, or 0 for none.
        epochs: passes over the forget set, at least 1; enough for random labels on the fictitious authors.
        batch_size: rows a step, at least 1.
        keep: the state that becomes the adapter: of the "last" epoch, or the "best" one, measured on forget
            and retained rows after each epoch, see `adapter.best`; needs a retain objective, and a fit that
            was stopped begins again.
        max_tokens: longest prompt and answer together; 0 for the model's context length.
        gradient_checkpointing: recompute activations in the backward pass to save memory.

    Raises:
        InputError: an unknown name, or a number outside its range.
    """

    kind: str = LORA
    rank: int = 8
    alpha: float = 16.0
    noise: float = 0.0
    dropout: float = 0.0
    targets: tuple[str, ...] = (ALL_LINEAR,)
    mode: str = "per_request"
    penalty_side: str = "input"
    penalty_coefficient: float = 0.1
    penalty_against: str = "all"
    optimizer: str = "adamw"
    learning_rate: float = 5e-3
    weight_decay: float = 0.0
    warmup_fraction: float = 0.1
    clip: float = 1.0
    epochs: int = 10
    batch_size: int = 12
    keep: str = LAST
    max_tokens: int = 0
    gradient_checkpointing: bool = False

    def __post_init__(self) -> None:
        check_choice(self, "adapter", "kind", KINDS)
        check_choice(self, "adapter", "keep", KEEPS)
        check_choice(self, "adapter", "mode", MODES)
        check_choice(self, "adapter", "penalty_side", SIDES)
        check_choice(self, "adapter", "optimizer", OPTIMIZERS)
        check_choice(self, "adapter", "penalty_against", AGAINST)
        check_ranges(self, "adapter", rank=AT_LEAST_1, epochs=AT_LEAST_1, batch_size=AT_LEAST_1)
        check_ranges(self, "adapter", alpha=ANY_POSITIVE, learning_rate=ANY_POSITIVE)
        check_ranges(self, "adapter", penalty_coefficient=AT_LEAST_0, weight_decay=AT_LEAST_0)
        check_ranges(self, "adapter", clip=AT_LEAST_0, max_tokens=AT_LEAST_0, noise=AT_LEAST_0)
        check_ranges(self, "adapter", dropout=BELOW_1, warmup_fraction=BELOW_1)
        if self.kind == FULL and (self.penalty_coefficient or self.dropout or self.mode == "hard"):
            got = f"{self.penalty_coefficient:g}, {self.dropout:g} and {self.mode}"
            expected = "penalty_coefficient 0, dropout 0 and a mode other than hard with kind full"
            refuse("adapter", "kind", expected, got)
        if not self.targets:
            refuse("adapter", "targets", "names of modules", "none")

    @property
    def scale(self) -> float:
        """The factor of the update."""
        return 1.0 if self.kind == FULL else self.alpha / self.rank

    @property
    def sides(self) -> tuple[str, ...]:
        """The factors that are kept orthogonal."""
        return ("input", "output") if self.penalty_side == "both" else (self.penalty_side,)
