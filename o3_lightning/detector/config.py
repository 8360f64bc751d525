"""The settings of a detector. A field left empty takes the value of its preset."""

import json
from dataclasses import dataclass, field
from importlib.resources import files
from typing import Any

from o3_lightning.common.checks import ANY_POSITIVE, FRACTION, check_among, check_choice, check_ranges
from o3_lightning.common.errors import InputError
from o3_lightning.detector.base import DETECTORS

CHANNELS = ("whitened", "cosine", "mahalanobis", "lexical", "subject")
OBJECTIVES = ("none", "contrastive_entropy", "official_entropy", "info_nce", "nt_xent", "moco", "entity_swap")
THRESHOLDS = ("none", "scienceqa", "tofu")
FAMILIES = ("fusion", "layers", "official")  # of this package
OF_PRESETS = ("family", "bank")  # what only a preset decides
POOLINGS = ("mean", "first", "last", "padded_mean")
HALF = ":bfloat16"  # behind an encoder's name: its linear layers compute in bfloat16
PRESETS: dict[str, dict[str, Any]] = json.loads(
    files("o3_lightning.detector").joinpath("presets.json").read_text(encoding="utf-8")
)


def preset_names() -> list[str]:
    """Returns every preset: those of this file, and the detectors that plug-ins and packages registered."""
    return [*PRESETS, *(name for name in DETECTORS.names() if name not in FAMILIES)]


def preset_values(preset: str) -> dict[str, Any]:
    """Returns the fields that a preset fills in; the name of a registered detector is a preset of its own."""
    if preset in PRESETS:
        return PRESETS[preset]
    check_among(preset, preset_names(), "detector.preset")
    return {**PRESETS["default"], "family": preset, **DETECTORS[preset].settings}


@dataclass(frozen=True)
class TrainingConfig:
    """How an encoder is adapted to a request; read only where the objective is not "none".

    Args:
        learning_rate: of AdamW; 1e-4 after the official TOFU script (1e-5 for ScienceQA).
        epochs: passes over the forget prompts; 2 in the official code.
        batch_size: prompts a step; 8 in the official code.
        temperature: of the contrastive losses; "official_entropy" has none.
        momentum: of the key encoder, in [0, 1], after the paper; "official_entropy" leaves it frozen.
        mlm_coefficient: weight of the masked-LM term; needs a checkpoint with a pretrained head.
    """

    learning_rate: float = 1e-4
    epochs: int = 2
    batch_size: int = 8
    temperature: float = 0.1
    momentum: float = 0.999
    mlm_coefficient: float = 0.0

    def __post_init__(self) -> None:
        positive = ("learning_rate", "epochs", "batch_size", "temperature")
        check_ranges(self, "detector.training", momentum=FRACTION, **dict.fromkeys(positive, ANY_POSITIVE))


@dataclass(frozen=True)
class DetectorConfig:
    """How a detector is trained, fitted and calibrated.

    Args:
        preset: "default"; "cosine_maha_lexical", a simpler fusion; "paper", the published method with its
            sign corrected; "official", the released code with its numbers; or a registered detector. It fills
            the fields left empty.
        encoder: "minilm" (offline), a folder, or a Hugging Face id such as "roberta-large"; a BERT also as
            "minilm:bfloat16", two to three times as fast on processors with AMX or AVX-512 BF16.
        pooling: "mean", "first", "last" or "padded_mean" (official); empty takes the preset's.
        channels: which scores are added up, out of `CHANNELS` (fusion); empty takes the preset's.
        channel_weights: what each of them counts, not negative; empty takes the preset's, for "default"
            chosen on TOFU, CLINC150 banking and auto_and_commute, and the first real-world split, that of the
            subject on four requests of our own (a planet, a composer, a maker of cars, a river).
        objective: "none", "contrastive_entropy" (the paper's), "official_entropy" (the released code's),
            "info_nce", "nt_xent", "moco" or "entity_swap"; empty takes the preset's.
        thresholds: of "official" alone, what its evaluation scripts make of a weight w: "scienceqa" gives 1
            above 0.9 (1.2 in the script), w from 0.3 to 0.4 and else 0; "tofu" gives 1 from 0.32, 10 w^2 from
            0.2 and else 0; "none" gives w.
        gamma: of "paper" and "official", weight of the cosine (O3's local score) against half the squared
            Mahalanobis distance (its global score); 0 leaves the distance alone.
        nu: of "paper" and "official", fraction of outliers of the one-class SVM, in (0, 1).
        zeta: of "official", slope of the soft weight.
        layers: of "paper" and "official", how many of the last layers count; 0 for all ("official" without
            the embeddings).
        reading: "full" judges a prompt by every reading of it (markup, codes and spellings undone), by its
            spans and by the hashed names of the request; "plain" by its normalised text. Empty takes the
            preset's.
        salt: any text, mixed into the hashes of names and answers. Requests of a store with the same salt are
            looked up together; with another one, the hashes of two stores cannot be compared.
        training: of the encoder.
        max_tokens: longer prompts are cut to this; their spans still see everything.
        device: torch device of the encoder.
        most_rows: most forget prompts that are encoded; of more a random sample is, which bounds time and
            memory and moves centroids and covariances little. Their words are all known.
        tail_quantile: lower quantile of unseen forget prompts, taken as normal, below which the weight is
            less than 1; chosen on the development tasks so that ten requests leak little.
        recall: promised share of unseen forget prompts with a weight of at least a half; checked, reported.
    """

    preset: str = "default"
    encoder: str = "minilm"
    pooling: str = ""
    channels: tuple[str, ...] = ()
    channel_weights: tuple[float, ...] = ()
    objective: str = ""
    thresholds: str = "none"
    gamma: float = 1000.0
    nu: float = 0.1
    zeta: float = 10.0
    layers: int = 0
    reading: str = ""
    salt: str = ""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    max_tokens: int = 256
    device: str = "cpu"
    most_rows: int = 20_000
    tail_quantile: float = 0.08
    recall: float = 0.9

    def __post_init__(self) -> None:
        for name, value in preset_values(self.preset).items():
            if name not in {*OF_PRESETS, *self.__dataclass_fields__}:
                message = f"{self.preset!r} sets {name!r}, which is no field of a detector"
                raise InputError(message, field="detector.preset")
            if name not in OF_PRESETS and not getattr(self, name):
                object.__setattr__(self, name, value)
        for name in ("channels", "channel_weights"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        self._check_choices()
        check_ranges(self, "detector", **dict.fromkeys(("max_tokens", "most_rows"), (1, 1_000_000)))
        check_ranges(self, "detector", **dict.fromkeys(("gamma", "zeta", "layers"), (0, 1_000_000)))
        check_ranges(self, "detector", **dict.fromkeys(("tail_quantile", "recall", "nu"), (1e-6, 1 - 1e-6)))

    @property
    def family(self) -> str:
        """The registered name of the evidence that gives the score: that of the preset."""
        return str(preset_values(self.preset)["family"])

    @property
    def keeps_examples(self) -> bool:
        """Whether the features of every forget prompt are kept, not only centroids of them."""
        return bool(preset_values(self.preset)["bank"] == "examples")

    @property
    def parts(self) -> tuple[str, ...]:
        """The registered names of the evidences that a request's detector holds, the reported one first."""
        return (
            (self.family, "names") if self.reading == "full" and self.family == "fusion" else (self.family,)
        )

    def _check_choices(self) -> None:
        check_choice(self, "detector", "pooling", POOLINGS)
        check_choice(self, "detector", "objective", OBJECTIVES)
        check_choice(self, "detector", "thresholds", THRESHOLDS)
        check_choice(self, "detector", "reading", ("full", "plain"))
        if self.encoder.endswith(HALF) and (self.objective, self.pooling) != ("none", "mean"):
            given = f"{self.objective!r} and {self.pooling!r}"
            message = f"{HALF!r} takes objective 'none' and pooling 'mean', got {given}"
            raise InputError(message, field="detector.encoder")
        for channel in self.channels:
            check_among(channel, CHANNELS, "detector.channels")
        least, most = min(self.channel_weights, default=0), max(self.channel_weights, default=1)
        if len(self.channels) != len(self.channel_weights) or least < 0 or most <= 0:
            message = (
                f"expected {len(self.channels)} weights, not all 0, none negative, got {self.channel_weights}"
            )
            raise InputError(message, field="detector.channel_weights")
