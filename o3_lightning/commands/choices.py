"""Which options a command takes, which of them its `--help` shows, and those beside the configuration."""

# Apart from the commands: reading the fields' types runs the TYPE_CHECKING imports of their module.

from __future__ import annotations

from dataclasses import dataclass

NOT_READ = {  # sections of the configuration that a command ignores in files and refuses as options
    "detector": ("adapter", "objective", "gate", "evaluation", "logging"),
    "adapter": ("detector", "gate", "evaluation"),
    "evaluate": ("adapter", "objective", "logging"),
    "ask": ("data", "adapter", "objective", "logging", "trainer"),
}
ALWAYS_SHOWN = ("help", "help_all", "config", "name", "output", "print_config")
RUN = (
    "seed take_over plugin data.name data.requests data.retain base.id base.quantise "
    "objective.forget.name adapter.rank adapter.epochs adapter.learning_rate gate.check_answers "
    "trainer.devices"
)
WORDS = {  # the options that --help shows; --help-all shows the others, too
    "run": RUN,
    "estimate": RUN,
    "detector": "request data.name data.requests detector.preset detector.encoder",
    "adapter": (
        "request data.name data.requests base.id objective.forget.name adapter.rank adapter.epochs "
        "adapter.learning_rate trainer.devices"
    ),
    "evaluate": (
        "model reference robustness evaluation.metrics evaluation.batch_size "
        "evaluation.max_new_tokens evaluation.robustness.kinds evaluation.robustness.rows "
        "gate.check_answers trainer.devices"
    ),
    "ask": "questions base.device evaluation.max_new_tokens gate.check_answers gate.combine",
    "reveal": (
        "seed topic request_id base.id search.queries search.searcher reward.scorer reward.others "
        "filter.relevance filter.rows sampling.samples"
    ),
    "release": (
        "seed topic requests retain base.id undo redo export search.queries reward.scorer temperature further"
    ),
}
SHOWN = {command: tuple(words.split()) for command, words in WORDS.items()}


@dataclass(frozen=True)
class RequestChoice:
    """The request that a command works on.

    Args:
        request: its id; empty for the first one of the stream.
    """

    request: str = ""


@dataclass(frozen=True)
class EvaluateChoice:
    """What to measure, beside the configuration.

    Args:
        model: a checkpoint without a gate, as in `base.id`, or "retrained"; empty for the run's gated model.
        reference: a model that never saw the forget sets, for forget quality, privleak and reference losses:
            "retrained" (the base model trained again without them, once, where the project trained it), a
            checkpoint, or the JSON file of an earlier evaluation; empty for none.
        robustness: attack the model as configured in `evaluation.robustness`, instead of measuring it.
    """

    model: str = ""
    reference: str = ""
    robustness: bool = False
