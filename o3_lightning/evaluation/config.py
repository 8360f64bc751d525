"""What is measured after each request."""

from dataclasses import dataclass, field
from typing import Literal

from o3_lightning.attacks.config import RobustnessConfig, check_names
from o3_lightning.common.checks import AT_LEAST_0, AT_LEAST_1, check_ranges
from o3_lightning.metrics.registry import METRICS as KNOWN_METRICS

AUTO: Literal["auto"] = "auto"
CPU_ROWS = 256  # the splits of the demo have up to 216 rows
METRICS = ("accuracy", "rouge_l_recall", "probability", "truth_ratio@tofu")


@dataclass(frozen=True)
class EvaluationConfig:
    """What is measured after each request.

    Args:
        metrics: names of registered metrics, such as "accuracy" (the answer contains the truth),
            "rouge_l_recall", "probability" (of the true answer), "truth_ratio@tofu", "extraction_strength"
            or "mia_min_k"; at least one. The default skips the truth ratio on benchmarks without perturbed
            answers; any other metric that no split allows is an error.
        max_new_tokens: longest generated answer, in tokens; 1 or more. TOFU uses 200.
        batch_size: prompts per batch, 1 or more. It changes the speed, not the values.
        rows: most rows of each split that are measured, drawn by the seed; 0 measures all. "auto" is 256
            where the base model is on a CPU, otherwise all.
        samples: answers per split that the run keeps as text for the report; 0 keeps no text at all.
        encoder: sentence encoder of "cosine_similarity": "minilm" (the packaged one) or a Hugging Face id or
            folder; closer-look uses paraphrase-MiniLM-L6-v2.
        entailment_model: Hugging Face id or folder of the inference model of "entailment"; closer-look uses
            sileod/deberta-v3-base-tasksource-nli. Empty for none; "entailment" is an error then.
        gibberish_model: the same for "gibberish": a text classifier with a label "clean".
        toxicity_model: the same for "toxicity": a text classifier with a label "toxicity"; Detoxify's is
            unitary/unbiased-toxic-roberta.
        run_code: whether "pass_at_1" may execute the programs that the model writes.
        robustness: settings of `evaluate --robustness true`.

    Raises:
        InputError: an unknown metric or a number outside its range.
    """

    metrics: tuple[str, ...] = METRICS
    max_new_tokens: int = 64
    batch_size: int = 64
    rows: int | Literal["auto"] = AUTO
    samples: int = 3
    encoder: str = "minilm"
    entailment_model: str = ""
    gibberish_model: str = ""
    toxicity_model: str = ""
    run_code: bool = False
    robustness: RobustnessConfig = field(default_factory=RobustnessConfig)

    def __post_init__(self) -> None:
        check_names("evaluation", "metrics", self.metrics, KNOWN_METRICS.names())
        numbers = {"max_new_tokens": AT_LEAST_1, "batch_size": AT_LEAST_1, "samples": AT_LEAST_0}
        if self.rows != AUTO:
            numbers["rows"] = AT_LEAST_0
        check_ranges(self, "evaluation", **numbers)

    def rows_on(self, device: str) -> int:
        """Returns the most rows of a split that are measured on a type of device ("cpu"); 0 for all."""
        if isinstance(self.rows, str):
            return CPU_ROWS if device == "cpu" else 0
        return self.rows
