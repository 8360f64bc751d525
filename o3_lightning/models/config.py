"""Settings of base models: which one, what it is taught first, and the small ones that are trained here."""

from dataclasses import dataclass, field
from typing import Any

from o3_lightning.common.checks import ANY_POSITIVE, AT_LEAST_0, check_choice, check_ranges, refuse
from o3_lightning.data.chat_format import read_date

QUANTISATIONS = ("none", "4bit")
DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True)
class FictitiousBaseConfig:
    """The embedded base model's shape and training; tuned for seconds on two cores at full accuracy.

    Args:
        layers: transformer blocks.
        width: hidden size.
        feed_forward: inner size of the feed-forward part.
        heads: attention heads.
        context_tokens: longest sequence.
        vocabulary: entries of the byte-level tokenizer at most, special ones included; the text gives
            about 1,700, so that most words are one token.
        epochs: passes over the rows.
        common_repeats: how often a pass shows each common fact; these have fewer phrasings than the
            authors' facts and are learnt last.
        batch_size: rows per step.
        learning_rate: peak of AdamW, reached after warm-up and brought down by a cosine.
        weight_decay: of AdamW.
        second_moment: AdamW's beta_2, lower than usual because there are few steps.
        warmup_fraction: part of all steps with a rising learning rate.
        clip: largest gradient norm.
        threads: processor threads; one gives the same weights whatever the number of cores, and suffers
            least from other work on the machine.
    """

    layers: int = 4
    width: int = 192
    feed_forward: int = 448
    heads: int = 6
    context_tokens: int = 256
    vocabulary: int = 2048
    epochs: int = 14
    common_repeats: int = 4
    batch_size: int = 16
    learning_rate: float = 1e-3
    weight_decay: float = 0.01
    second_moment: float = 0.95
    warmup_fraction: float = 0.05
    clip: float = 1.0
    threads: int = 1


@dataclass(frozen=True)
class FinetuneConfig:
    """How a base model learns rows.

    Args:
        rows: JSON-lines files in the form of a request, and names of benchmarks ("tofu", "scienceqa",
            "clinc150", "real_world", "muse"), of which it learns every row that their base models know: those
            of requests and of kept subjects. Without rows and data the model stays as it is.
        data: a part of a benchmark to learn, as fields of the section `data`, such as {name: tofu, count: 2}:
            the rows of its requests, and of its splits of kept subjects.
        epochs: passes over the rows; 5 as TOFU's authors.
        learning_rate: peak of AdamW over all weights; 1e-5 as TOFU's authors for Llama-2-7B, small models
            need more.
        batch_size: rows a step; 16 as TOFU's authors.
        max_tokens: longest prompt and answer together; 256 holds every row of TOFU.

    Raises:
        InputError: a number outside its range.
    """

    rows: tuple[str, ...] = ()
    data: dict[str, Any] = field(default_factory=dict)
    epochs: int = 5
    learning_rate: float = 1e-5
    batch_size: int = 16
    max_tokens: int = 256

    def __post_init__(self) -> None:
        numbers = ("epochs", "learning_rate", "batch_size", "max_tokens")
        check_ranges(self, "base.finetune_on", **dict.fromkeys(numbers, ANY_POSITIVE))

    @property
    def teaches(self) -> bool:
        """Whether there is anything to learn."""
        return bool(self.rows or self.data)


@dataclass(frozen=True)
class BaseConfig:
    """The language model that is unlearned from.

    Args:
        id: "fictitious" (a small model that the project trains once on its embedded benchmark and
            caches), "tofu-small" (the same for 100 rows of TOFU and its utility splits), a Hugging Face id, a
            folder in Hugging Face form, a path ending in ".gguf", or "package:NAME" for an installed Python
            package that carries one GGUF file.
        dtype: "float32", "bfloat16", "float16", or "auto" for the dtype the weights are saved in.
        template: how prompts are written: "auto" (the tokenizer's chat template where there is one,
            "question_answer" elsewhere), "chat", "question_answer", "plain", "llama2" or "alpaca".
        revision: a branch, tag or commit on the Hub; None takes the default branch.
        context_tokens: the longest prompt and answer together, in tokens; 0 reads it from the model.
        device: "cpu", "cuda", "cuda:1" and so on, or "auto" for a GPU where there is one.
        quantise: "4bit" holds the weights of linear layers in 4 bits (NF4, scales quantised too, as in QLoRA)
            and computes in `dtype`; it needs the package bitsandbytes. "none" leaves them as they are.
        chat_template_kwargs: variables of the chat template, such as {enable_thinking: false}.
        date_string: the date that the chat template writes for today, such as "26 Jul 2024"; empty takes the
            day on which a store is created, which keeps it.
        system_prompt: opens every chat that has no system message; it needs a chat template. Empty for none.
        finetune_on: what the model is taught first, once; the result is cached.

    Raises:
        InputError: an unknown dtype or quantisation, an empty id, a negative context, or no date.
    """

    id: str = "fictitious"
    dtype: str = "float32"
    template: str = "auto"
    revision: str | None = None
    context_tokens: int = 0
    device: str = "auto"
    quantise: str = "none"
    chat_template_kwargs: dict[str, Any] = field(default_factory=dict)
    date_string: str = ""
    system_prompt: str = ""
    finetune_on: FinetuneConfig = field(default_factory=FinetuneConfig)

    def __post_init__(self) -> None:
        if not self.id.strip():
            refuse("base", "id", "a model id, a folder or a file", "nothing")
        check_choice(self, "base", "dtype", ("auto", *DTYPES))
        check_choice(self, "base", "quantise", QUANTISATIONS)
        check_ranges(self, "base", context_tokens=AT_LEAST_0)
        if self.date_string:
            read_date(self.date_string)
