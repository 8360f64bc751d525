"""Continual unlearning of language models: a detector, an orthogonal adapter and a soft gate per request.

The Python interface; each name is imported on first use, so that `import o3_lightning` stays fast:

    BaseConfig, load_base                    a base model, from the Hugging Face Hub, a folder or a GGUF file
    read_requests                            forget sets, from JSON-lines files
    UnlearningRequest, QuestionAnswer        the same, made in Python
    RunConfig, config_from                   settings, as dataclasses or as nested dictionaries
    Unlearner                                protects and unlearns requests, in a store on disk
    GatedModel                               answers, scores and explains prompts through the gate
    RequestStream, evaluate_stream           measures a gated model on requests and on what must stay
    run_stream                               a whole run of a configuration, as `o3-lightning run` does it
    forget_objective, retain_objective,      decorators that add your own parts; see CONTRIBUTING.md
    metric, BENCHMARKS, ATTACKS, DETECTORS
"""

from typing import TYPE_CHECKING

from o3_lightning.common.lazy import import_on_use

if TYPE_CHECKING:
    from o3_lightning.attacks.registry import ATTACKS
    from o3_lightning.data.config import BENCHMARKS
    from o3_lightning.data.requests import QuestionAnswer, UnlearningRequest, read_requests
    from o3_lightning.data.stream import RequestStream
    from o3_lightning.detector.base import DETECTORS
    from o3_lightning.evaluation.evaluate import evaluate_stream
    from o3_lightning.gating.model import GatedModel
    from o3_lightning.metrics.registry import metric
    from o3_lightning.models.base import load_base
    from o3_lightning.models.config import BaseConfig
    from o3_lightning.objectives.registry import forget_objective, retain_objective
    from o3_lightning.run.config import RunConfig
    from o3_lightning.run.parsing import config_from
    from o3_lightning.run.pipeline import run_stream
    from o3_lightning.run.unlearner import Unlearner

__version__ = "0.2.0"

__all__ = [
    "ATTACKS",
    "BENCHMARKS",
    "DETECTORS",
    "BaseConfig",
    "GatedModel",
    "QuestionAnswer",
    "RequestStream",
    "RunConfig",
    "Unlearner",
    "UnlearningRequest",
    "config_from",
    "evaluate_stream",
    "forget_objective",
    "load_base",
    "metric",
    "read_requests",
    "retain_objective",
    "run_stream",
]

MODULES = {
    "ATTACKS": "attacks.registry",
    "BENCHMARKS": "data.config",
    "QuestionAnswer": "data.requests",
    "UnlearningRequest": "data.requests",
    "read_requests": "data.requests",
    "RequestStream": "data.stream",
    "DETECTORS": "detector.base",
    "evaluate_stream": "evaluation.evaluate",
    "GatedModel": "gating.model",
    "metric": "metrics.registry",
    "BaseConfig": "models.config",
    "load_base": "models.base",
    "forget_objective": "objectives.registry",
    "retain_objective": "objectives.registry",
    "RunConfig": "run.config",
    "config_from": "run.parsing",
    "run_stream": "run.pipeline",
    "Unlearner": "run.unlearner",
}


__getattr__ = import_on_use(__name__, MODULES)


def __dir__() -> list[str]:
    """Lists the names that are not imported yet, too."""
    return sorted({*globals(), *__all__})
