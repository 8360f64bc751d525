"""One configuration for every command: typed, documented, checked, read from YAML and the command line.

Each room owns the dataclass of its own section; this file composes them.
"""

import dataclasses
import inspect
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from docstring_parser import parse as parse_docstring

from o3_lightning.adapter.config import AdapterConfig
from o3_lightning.common.checks import check_choice
from o3_lightning.common.errors import InputError
from o3_lightning.common.plain import to_plain
from o3_lightning.common.registry import Registry
from o3_lightning.data.config import DataConfig
from o3_lightning.data.requests import check_id
from o3_lightning.detector.config import DetectorConfig
from o3_lightning.evaluation.config import EvaluationConfig
from o3_lightning.gating.config import GateConfig
from o3_lightning.models.config import BaseConfig
from o3_lightning.objectives.config import ObjectiveConfig
from o3_lightning.training.config import LoggingConfig

LINE, FAR = 108, 10**6  # widths of a comment and of a value in YAML
HEADER = [
    "# Every field with its default, unit and source. Generated from the classes that own the fields:",
    "#   python -c 'from o3_lightning.run.config import default_yaml; print(default_yaml(), end=\"\")'",
    "# A test keeps the two the same. Other files in this folder hold only what differs.",
]
TRAINER_HEADER = [
    "# options of lightning.Trainer, handed through: devices, strategy, precision, accumulate_grad_batches,",
    "# logger and so on; max_epochs overrides adapter.epochs.",
]
MOST_SEEDS = 2**32  # of NumPy
BASELINES: Registry[Any] = Registry("baseline")
"""By name, the function that returns the model to measure from an `Unlearner` and the requests so far."""
TRAINER_DEFAULTS: dict[str, Any] = {"accelerator": "auto", "devices": 1, "precision": "32-true"}


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """The configuration of a run, except the options of the trainer.

    Args:
        name: name of the run's folder: letters, digits, '.', '_' or '-'.
        output: folder that holds the runs, relative to the working directory.
        seed: an integer >= 0; the same seed gives the same metrics, 0 included.
        refuse_only: stop after protection: matching prompts are refused, and no adapter is trained.
        baseline: with `refuse_only`, the registered baseline that this run measures in place of refusals, as
            those of the plug-in benchmarks/baselines.py. Empty measures the gate.
        take_over: folder of a previous run to reuse when new requests have arrived: the detectors and
            adapters of the requests with which both runs begin are copied, and only the others are trained.
            Every setting that decides them must be equal; where `detector` alone differs, the adapters are
            copied and the detectors fitted. Empty trains all.
        plugins: modules, or paths of .py files, that register objectives, metrics, benchmarks, detectors or
            attacks of your own; a file is looked for beside the configuration, too. `--plugin` appends one.
        data: where the requests and the evaluation splits come from.
        base: the language model to unlearn from.
        detector: recognises the prompts of a request.
        adapter: unlearns a request.
        objective: what the adapter is trained to do.
        gate: how the weights of several requests combine.
        evaluation: what is measured after each request.
        logging: where the curves go.
    """

    name: str = "run"
    output: str = "runs"
    seed: int = 0
    refuse_only: bool = False
    baseline: str = ""
    take_over: str = ""
    plugins: tuple[str, ...] = ()
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    base: BaseConfig = dataclasses.field(default_factory=BaseConfig)
    detector: DetectorConfig = dataclasses.field(default_factory=DetectorConfig)
    adapter: AdapterConfig = dataclasses.field(default_factory=AdapterConfig)
    objective: ObjectiveConfig = dataclasses.field(default_factory=ObjectiveConfig)
    gate: GateConfig = dataclasses.field(default_factory=GateConfig)
    evaluation: EvaluationConfig = dataclasses.field(default_factory=EvaluationConfig)
    logging: LoggingConfig = dataclasses.field(default_factory=LoggingConfig)

    def __post_init__(self) -> None:
        check_id(self.name, field="name")
        if not 0 <= self.seed < MOST_SEEDS:
            raise InputError(f"expected an integer from 0 to {MOST_SEEDS - 1}, got {self.seed}", field="seed")
        if not self.output or "\0" in self.output:
            raise InputError(f"expected a folder, got {self.output!r}", field="output")
        if self.baseline and not self.refuse_only:
            raise InputError("needs refuse_only: true", field="baseline")
        if self.baseline:
            check_choice(self, "", "baseline", BASELINES.names())

    @property
    def folder(self) -> Path:
        """The folder of the run."""
        return Path(self.output) / self.name


def unfilled(kind: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the dotted names and declared defaults of the fields that a class fills in itself (presets).

    A parser takes its defaults from an instance: the fields that the default preset filled in would count as
    given, and another preset could not change them.
    """
    finished = kind()
    for field in dataclasses.fields(kind):
        value = getattr(finished, field.name)
        if dataclasses.is_dataclass(value):
            yield from unfilled(type(value), f"{prefix}{field.name}.")
        elif field.default is not dataclasses.MISSING and field.default != value:
            yield f"{prefix}{field.name}", field.default


def default_yaml() -> str:
    """Returns the text of configs/default.yaml: every field with its default and its documentation."""
    trainer = yaml.safe_dump({"trainer": TRAINER_DEFAULTS}, sort_keys=False)
    return "\n".join([*HEADER, *describe_defaults(), "", *TRAINER_HEADER, trainer])


def describe_defaults(kind: type = RunConfig, indent: int = 0) -> list[str]:
    """Returns the lines of a YAML file with the default of every field under its documentation."""
    documented = {
        item.arg_name: item.description for item in parse_docstring(inspect.getdoc(kind) or "").params
    }
    instance, lines, empty = kind(), [], dict(unfilled(kind))
    for field in dataclasses.fields(kind):
        text = documented.get(field.name)
        if not text:
            raise TypeError(f"{kind.__name__}.{field.name} is not documented under Args:")
        lines.append("")
        text = re.sub(r"\bNone\b", "null", " ".join(text.split()))  # YAML's word
        lines += [f"{' ' * indent}# {line}" for line in textwrap.wrap(text, LINE - indent)]
        value = getattr(instance, field.name)
        if dataclasses.is_dataclass(value):
            lines += [f"{' ' * indent}{field.name}:", *describe_defaults(type(value), indent + 2)[1:]]
        else:
            declared = to_plain(empty.get(field.name, value))
            dumped = yaml.safe_dump([declared], default_flow_style=True, width=FAR)
            lines.append(f"{' ' * indent}{field.name}: {dumped.strip()[1:-1]}")
    return lines
