"""The settings of a detector. A field left empty takes the value of its preset."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

from o3_lightning.common.errors import InputError
from o3_lightning.detector.base import DETECTORS

__all__ = ["CHANNELS", "OBJECTIVES", "PRESETS", "DetectorConfig", "SegmentConfig", "TrainingConfig"]

CHANNELS = ("whitened", "cosine", "mahalanobis", "lexical", "subject")
OBJECTIVES = ("none", "contrastive_entropy", "info_nce", "entity_swap")
FAMILIES = ("fusion", "layers", "official")  # of this package; known without importing them
POOLINGS = ("mean", "first", "last", "padded_mean")
PRESETS: dict[str, dict[str, Any]] = {
    "default": {
        "pooling": "mean",
        "family": "fusion",
        "bank": "centroids",
        "channels": CHANNELS,
        "channel_weights": (2.0, 1.0, 0.75, 0.75, 4.0),
        "reading": "full",
        "objective": "none",
    },
    "k9": {
        "pooling": "mean",
        "family": "fusion",
        "bank": "examples",
        "channels": ("cosine", "mahalanobis", "lexical"),
        "channel_weights": (1.0, 1.0, 1.0),
        "reading": "plain",
        "objective": "none",
    },
    "paper": {
        "pooling": "mean",
        "family": "layers",
        "bank": "examples",
        "channels": (),
        "channel_weights": (),
        "reading": "plain",
        "objective": "contrastive_entropy",
    },
    "official": {
        "pooling": "padded_mean",
        "family": "official",
        "bank": "examples",
        "channels": (),
        "channel_weights": (),
        "reading": "plain",
        "objective": "contrastive_entropy",
    },
}
OFFICIAL_TRAINING: dict[str, Any] = {"temperature": 1.0, "momentum": 1.0, "normalise": False, "floor": 1e-5}


def preset_values(preset: str) -> dict[str, Any]:
    """Returns the fields that a preset fills in; the name of a registered detector is a preset of its own."""
    if preset in PRESETS:
        return PRESETS[preset]
    registered = [name for name in DETECTORS.names() if name not in FAMILIES]
    check_choice("preset", preset, (*PRESETS, *registered))
    return {**PRESETS["default"], "family": preset, **DETECTORS[preset].settings}


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuses a value that is not among the choices."""
    if value not in choices:
        raise InputError(f"expected one of {', '.join(choices)}, got {value!r}", field=f"detector.{name}")


def check_range(name: str, value: float, low: float, high: float) -> None:
    """Refuses a number outside [low, high]."""
    if not low <= value <= high:
        raise InputError(
            f"expected a number from {low:g} to {high:g}, got {value!r}", field=f"detector.{name}"
        )


@dataclass(frozen=True)
class TrainingConfig:
    """How an encoder is adapted to a request; read only where the objective is not "none".

    Args:
        learning_rate: of AdamW; 1e-4 after the official TOFU script (1e-5 for ScienceQA).
        epochs: passes over the forget prompts; 2 in the official code.
        batch_size: prompts a step; 8 in the official code.
        rank: of the LoRA; 8 in the official code.
        alpha: of the LoRA; 32 in the official code.
        dropout: of the LoRA; 0.1 in the official code.
        targets: modules that get a LoRA; empty for query, key and value.
        temperature: of the contrastive losses; the official entropy has none (1.0).
        momentum: of the key encoder, in [0, 1], after the paper; 1 leaves it frozen (official code).
        masked_fraction: share of tokens hidden in the query view and predicted by the masked-LM term.
        mlm_coefficient: weight of the masked-LM term; needs a checkpoint with a pretrained head.
        normalise: whether the contrastive entropy compares unit vectors; the official code does not.
        floor: added to a probability before its logarithm; 1e-5 in the official code.
    """

    learning_rate: float = 1e-4
    epochs: int = 2
    batch_size: int = 8
    rank: int = 8
    alpha: int = 32
    dropout: float = 0.1
    targets: tuple[str, ...] = ()
    temperature: float = 0.1
    momentum: float = 0.999
    masked_fraction: float = 0.15
    mlm_coefficient: float = 0.0
    normalise: bool = True
    floor: float = 0.0

    def __post_init__(self) -> None:
        for name in ("learning_rate", "epochs", "batch_size", "rank", "temperature"):
            if getattr(self, name) <= 0:
                message = f"expected a positive number, got {getattr(self, name)!r}"
                raise InputError(message, field=f"detector.training.{name}")
        for name in ("dropout", "momentum", "masked_fraction"):
            check_range(f"training.{name}", getattr(self, name), 0, 1)
        object.__setattr__(self, "targets", tuple(self.targets))


@dataclass(frozen=True)
class SegmentConfig:
    """How long prompts are cut, so that a question inside other text is found.

    Args:
        enabled: whether segments are scored at all.
        window_words: words in a window.
        stride_words: words from one window to the next.
        most: most segments of a prompt.
        penalty: standard deviations by which a segment must be closer than a whole prompt; measured on
            question-free text about retained TOFU authors.
        penalty_growth: further standard deviations for each factor e in the number of segments.
        least_words: a shorter segment is too little to judge.
    """

    enabled: bool = True
    window_words: int = 16
    stride_words: int = 8
    most: int = 96
    penalty: float = 0.0
    penalty_growth: float = 0.1
    least_words: int = 4

    def __post_init__(self) -> None:
        for name in ("window_words", "stride_words", "most", "least_words"):
            check_range(f"segments.{name}", getattr(self, name), 1, 10_000)
        for name in ("penalty", "penalty_growth"):
            check_range(f"segments.{name}", getattr(self, name), 0, 100)


@dataclass(frozen=True)
class DetectorConfig:
    """How a detector is trained, fitted and calibrated.

    Args:
        preset: "default"; "k9", a simpler fusion; "paper", the published method with its sign mended;
            "official", the released code with its numbers. It fills the fields left empty, from pooling to
            objective, and with "official" the training settings where they are untouched.
        encoder: "minilm" (offline), a folder, or a Hugging Face id such as "roberta-large".
        pooling: "mean", "first", "last" or "padded_mean" (official); empty takes the preset's.
        family: "fusion" of channels, "layers" scores under a one-class boundary, or "official";
            empty takes the preset's.
        channels: which scores are added up, out of `CHANNELS` (fusion); empty takes the preset's.
        channel_weights: what each of them counts, not negative; empty takes the preset's, for "default"
            chosen on TOFU, CLINC150 banking and auto_and_commute, and the first real-world split, that of the
            subject on four requests of our own (a planet, a composer, a maker of cars, a river).
        bank: "centroids", or "examples" to keep the features of every forget prompt, which is less private;
            empty takes the preset's.
        objective: "none", "contrastive_entropy", "info_nce" or "entity_swap"; empty takes the preset's.
        reading: "full" judges a prompt by every reading of it (markup, codes and spellings undone), by its
            spans and by the hashed names of the request; "plain" by its normalised text (and segments, in a
            fusion). Empty takes the preset's.
        salt: any text, mixed into the hashes of names. Requests of a store with the same salt are looked up
            together; with another one, the hashes of two stores cannot be compared.
        training: of the encoder.
        segments: of long prompts.
        normalise: whether look-alikes, zero-width characters and accents are undone before the encoder reads.
        repair_spelling: whether a prompt with unknown words is also read with the words one slip away, the
            closer reading counting. Of the request's words that no vocabulary has, hashes are kept for it.
        max_tokens: longer prompts are cut to this; their segments still see everything.
        device: torch device of the encoder.
        most_rows: most forget prompts that are encoded; of more a random sample is, which bounds time and
            memory and moves centroids and covariances little. Their words are all known.
        folds: parts for cross-fitting, at least 2; with few of them a small request looks harder than it is.
        centroids: most centroids a request keeps.
        rows_per_centroid: forget prompts behind one centroid at least, on average.
        most_rank: most directions of the covariance kept at the last layer; 320 tell no request apart better
            than 128 do and weigh half as much again.
        within_rank: most directions of the covariance inside clusters kept at each layer.
        within_layers: how many of the last layers the whitened channel averages.
        tail: share of a normal distribution of unseen forget prompts that gets a weight below 1;
            chosen on the development tasks so that ten requests leak little.
        sharpness: how steeply the weight falls inside that tail, at least 1: the power of its share. 2 and a
            narrower tail keep as many forget prompts as 1 does and leak half as much to the neighbours.
        recall: promised share of unseen forget prompts with a weight of at least a half; checked, reported.
        smallest_request: with fewer distinct prompts, views of them replace cross-fitting, with a warning.
        swap_fraction: share of a prompt's distinct tokens exchanged in a made-up neighbour; on the
            development tasks such neighbours score about as high as real ones.
        swap_quantile: which of the made-up neighbours the weight is guarded against.
        swap_deviations: standard deviations below the center at which that neighbour is put at least.
        most_swaps: most made-up neighbours.
        name_share: share of the forget prompts that must hold a name for the request to be about it.
        subject_share: share of them that must hold such names, common ones alone; with fewer the request is
            about a topic, several things or a rare name, and the channel "subject" does not count. At a half,
            a TOFU request about two authors lost unseen questions about one of them.
        subject_kin: how many words of a name's kind stand for it in made-up prompts about something else.
        subject_copies: how many such prompts a forget prompt gets, beside one without the name.
        lexical_buckets: size of the hashed word table.
        lexical_power: how much more a rare word weighs in the lexical channel.
        certain_count: number of forget prompts from which a word counts as fully known.
        certain_fraction: the same as a fraction of the request; the larger of both counts.
        gamma: weight of the cosine against the Mahalanobis distance (families "layers" and "official").
        nu: share of outliers of the one-class SVM.
        used_fraction: share of prompts behind the official statistics; the rest places its Gaussians.
    """

    preset: str = "default"
    encoder: str = "minilm"
    pooling: str = ""
    family: str = ""
    channels: tuple[str, ...] = ()
    channel_weights: tuple[float, ...] = ()
    bank: str = ""
    objective: str = ""
    reading: str = ""
    salt: str = ""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    segments: SegmentConfig = field(default_factory=SegmentConfig)
    normalise: bool = True
    repair_spelling: bool = True
    max_tokens: int = 256
    device: str = "cpu"
    most_rows: int = 20_000
    folds: int = 10
    centroids: int = 32
    rows_per_centroid: int = 3
    most_rank: int = 128
    within_rank: int = 64
    within_layers: int = 3
    tail: float = 0.08
    sharpness: float = 2.0
    recall: float = 0.9
    smallest_request: int = 16
    swap_fraction: float = 0.3
    swap_quantile: float = 0.95
    swap_deviations: float = 3.5
    most_swaps: int = 160
    name_share: float = 0.125
    subject_share: float = 0.75
    subject_kin: int = 24
    subject_copies: int = 2
    lexical_buckets: int = 8192
    lexical_power: float = 2.0
    certain_count: float = 3.0
    certain_fraction: float = 0.02
    gamma: float = 1000.0
    nu: float = 0.1
    used_fraction: float = 0.8

    def __post_init__(self) -> None:
        for name, value in preset_values(self.preset).items():
            if not getattr(self, name):
                object.__setattr__(self, name, value)
        if self.preset == "official" and self.training == TrainingConfig():
            object.__setattr__(self, "training", replace(self.training, **OFFICIAL_TRAINING))
        for name in ("channels", "channel_weights"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        self._check_choices()
        self._check_ranges()

    @property
    def parts(self) -> tuple[str, ...]:
        """The registered names of the evidences that a request's detector holds, the reported one first."""
        return (
            (self.family, "names") if self.reading == "full" and self.family == "fusion" else (self.family,)
        )

    def _check_choices(self) -> None:
        check_choice("pooling", self.pooling, POOLINGS)
        if self.family not in FAMILIES and self.family not in DETECTORS:
            check_choice("family", self.family, tuple(DETECTORS.names()))
        check_choice("bank", self.bank, ("centroids", "examples"))
        check_choice("objective", self.objective, OBJECTIVES)
        check_choice("reading", self.reading, ("full", "plain"))
        for channel in self.channels:
            check_choice("channels", channel, CHANNELS)
        if len(self.channels) != len(self.channel_weights) or min(self.channel_weights, default=0) < 0:
            message = f"expected {len(self.channels)} weights, not negative, got {self.channel_weights}"
            raise InputError(message, field="detector.channel_weights")

    def _check_ranges(self) -> None:
        counts = ("max_tokens", "centroids", "rows_per_centroid", "most_rank", "within_rank", "within_layers")
        more = ("most_rows", "smallest_request", "most_swaps", "subject_kin", "subject_copies")
        for name in (*counts, *more, "lexical_buckets"):
            check_range(name, getattr(self, name), 1, 1_000_000)
        check_range("folds", self.folds, 2, 1000)
        for name in ("tail", "recall", "swap_fraction", "swap_quantile", "nu", "used_fraction"):
            check_range(name, getattr(self, name), 1e-6, 1 - 1e-6)
        for name in ("swap_deviations", "lexical_power", "certain_count", "gamma"):
            check_range(name, getattr(self, name), 1e-6, 1e6)
        check_range("sharpness", self.sharpness, 1, 100)
        for name in ("certain_fraction", "name_share", "subject_share"):
            check_range(name, getattr(self, name), 0, 1)
