"""One configuration for every command: typed, documented, checked, read from YAML and the command line.

Each room owns the dataclass of its own section; this file composes them.
"""

from __future__ import annotations

import dataclasses
import difflib
import inspect
import re
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml
from docstring_parser import parse as parse_docstring
from jsonargparse import ActionConfigFile, ArgumentError, ArgumentParser, Namespace  # type: ignore[attr-defined]

from o3_lightning.adapter.config import AdapterConfig
from o3_lightning.common.errors import InputError
from o3_lightning.common.plain import to_plain
from o3_lightning.common.yaml import read_mapping
from o3_lightning.data.config import DataConfig
from o3_lightning.data.requests import check_id
from o3_lightning.detector.config import DetectorConfig
from o3_lightning.evaluation.config import EvaluationConfig
from o3_lightning.gating.config import GateConfig
from o3_lightning.models.base import BaseConfig
from o3_lightning.objectives.config import ObjectiveConfig
from o3_lightning.training.trainer import LoggingConfig

__all__ = [
    "ConfigFile",
    "RunConfig",
    "add_run_arguments",
    "build_config",
    "config_from",
    "default_yaml",
    "describe_defaults",
    "parse",
]

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
TRAINER_DEFAULTS: dict[str, Any] = {"accelerator": "auto", "devices": 1, "precision": "32-true"}


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """Everything that decides the outcome of a run, except the options of the trainer.

    Args:
        name: names the folder of the run; letters, digits, '.', '_' or '-'.
        output: folder that holds the runs, relative to the working directory.
        seed: an integer >= 0; the same seed gives the same metrics, 0 included.
        refuse_only: stop at protection: matching prompts are refused for good and no adapter is trained.
        take_over: folder of an earlier run, for when new requests arrived: detectors and adapters of the
            requests with which both runs begin are taken over from it, and only the others' are trained.
            Everything that decides these must be the same. Empty trains all.
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
    take_over: str = ""
    data: DataConfig = dataclasses.field(default_factory=DataConfig)
    base: BaseConfig = dataclasses.field(default_factory=BaseConfig)
    detector: DetectorConfig = dataclasses.field(default_factory=DetectorConfig)
    adapter: AdapterConfig = dataclasses.field(default_factory=AdapterConfig)
    objective: ObjectiveConfig = dataclasses.field(default_factory=ObjectiveConfig)
    gate: GateConfig = dataclasses.field(default_factory=GateConfig)
    evaluation: EvaluationConfig = dataclasses.field(default_factory=EvaluationConfig)
    logging: LoggingConfig = dataclasses.field(default_factory=LoggingConfig)

    def __post_init__(self) -> None:
        try:
            check_id(self.name)
        except InputError as error:
            raise InputError(str(error).split(": ", 1)[1], field="name") from None
        if self.seed < 0:
            raise InputError(f"expected an integer >= 0, got {self.seed}", field="seed")

    @property
    def folder(self) -> Path:
        """Where the run keeps its files."""
        return Path(self.output) / self.name


class ConfigFile(ActionConfigFile):
    """The argument `--config FILE`: the parser is given what our own, stricter reader made of the file."""

    @staticmethod
    def apply_config(parser: ArgumentParser, cfg: Namespace, dest: str, value: str) -> None:
        """Adds the file's keys to what is parsed already.

        Raises:
            InputError: as `read_mapping`.
        """
        ActionConfigFile.apply_config(parser, cfg, dest, yaml.safe_dump(read_mapping(value)))


def add_run_arguments(parser: ArgumentParser) -> None:
    """Adds `--config`, every field of `RunConfig` and the options of `lightning.Trainer` to a parser."""
    from lightning import Trainer  # seconds to import: only commands that train ask for it

    parser.add_argument("--config", action=ConfigFile, help="YAML file; later options override it")
    parser.add_class_arguments(RunConfig, None, fail_untyped=True)
    parser.set_defaults(dict(unfilled(RunConfig)))
    parser.add_class_arguments(Trainer, "trainer", instantiate=False, fail_untyped=False)
    parser.set_defaults({f"trainer.{key}": value for key, value in TRAINER_DEFAULTS.items()})


def unfilled(kind: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yields the fields, with dots, that a class fills in itself, each with the default that it declares.

    A parser takes its defaults from a finished object. Left so, the fields that the default preset filled
    would count as given, and naming another preset would change nothing but the name.
    """
    finished = kind()
    for field in dataclasses.fields(kind):
        value = getattr(finished, field.name)
        if dataclasses.is_dataclass(value):
            yield from unfilled(type(value), f"{prefix}{field.name}.")
        elif field.default is not dataclasses.MISSING and field.default != value:
            yield f"{prefix}{field.name}", field.default


def parse(parser: ArgumentParser, arguments: Sequence[str]) -> Namespace:
    """Parses a command line and tells a mistake in one line, with the nearest right name.

    Raises:
        InputError: an unknown key, a value of the wrong type, a file that is missing or not YAML.
    """
    try:
        return parser.parse_args(list(arguments)).clone(with_meta=False)  # no files' names beside the fields
    except ArgumentError as error:
        raise InputError(explain(str(error), known_keys(parser))) from error
    except UnicodeDecodeError as error:  # of a file that fills one section, such as --adapter FILE
        raise InputError(f"a section's file is not UTF-8: byte {error.start + 1}") from error


def build_config(namespace: Namespace) -> tuple[RunConfig, dict[str, Any]]:
    """Returns the checked configuration and the options for `lightning.Trainer`.

    Raises:
        InputError: a field holds a value outside its range; the message names the field.
    """
    values = {field.name: namespace[field.name] for field in dataclasses.fields(RunConfig)}
    config = RunConfig(**{key: build(RunConfig, key, value) for key, value in values.items()})
    return config, check_section("trainer", namespace["trainer"]).as_dict()


def config_from(values: dict[str, Any]) -> tuple[RunConfig, dict[str, Any]]:
    """Returns the configuration and the trainer's options that nested dictionaries spell, as YAML would.

    Raises:
        InputError: an unknown key, a value of the wrong type or outside its range.
    """
    parser = ArgumentParser(exit_on_error=False)
    add_run_arguments(parser)
    try:
        return build_config(parser.parse_object(values))
    except ArgumentError as error:
        raise InputError(explain(str(error), known_keys(parser))) from error


def build(owner: type, key: str, value: Any, prefix: str = "") -> Any:
    """Returns a section as its dataclass, sections inside it included; `prefix` is that of its name."""
    factory = next(field for field in dataclasses.fields(owner) if field.name == key).default_factory
    if factory is dataclasses.MISSING or not dataclasses.is_dataclass(factory):
        return value
    if dataclasses.is_dataclass(value):
        return value
    kind: Any = factory
    own = check_section(f"{prefix}{key}", value)
    return kind(**{name: build(kind, name, inner, f"{prefix}{key}.") for name, inner in vars(own).items()})


def check_section(name: str, value: Any) -> Namespace:
    """Returns what a parser made of a section.

    Raises:
        InputError: something else than fields stands there.
    """
    if not isinstance(value, Namespace):
        raise InputError(f"expected the fields of a section, got {value!r}", field=name)
    return value


def known_keys(parser: ArgumentParser) -> list[str]:
    """Every key that a parser accepts, sections with dots."""
    return sorted({action.dest for action in parser._actions if action.dest not in ("help", "print_config")})


def explain(message: str, keys: Sequence[str]) -> str:
    """Folds a parser's message into one line and adds the nearest right key to an unknown one."""
    text = " ".join(message.split())
    unknown = re.search(r"(?:unrecognized arguments: --|accept option '|Key '|key ')([\w.-]+)", text)
    if unknown is None or unknown.group(1) in keys:
        return f"{text}; a list is written '[one, two]'" if "<class 'tuple'>" in text else text
    section = re.search(r"Group '([\w.]+)' does not accept", text)
    name = f"{section.group(1)}.{unknown.group(1)}" if section else unknown.group(1)
    fields = [key for key in keys if not name.startswith(f"{key}.")]  # its own section is no help
    near = difflib.get_close_matches(name, fields, n=1, cutoff=0.5) or [
        key for key in fields if key.rsplit(".", 1)[-1] == name.rsplit(".", 1)[-1]
    ]
    hint = f"; did you mean '{near[0]}'?" if near else "; --help lists the known keys"
    return f"unknown key '{name}'{hint}"


def default_yaml() -> str:
    """Returns the text of configs/default.yaml: every field with its default and its documentation."""
    trainer = yaml.safe_dump({"trainer": TRAINER_DEFAULTS}, sort_keys=False)
    return "\n".join([*HEADER, *describe_defaults(), "", *TRAINER_HEADER, trainer])


def describe_defaults(kind: type = RunConfig, indent: int = 0) -> list[str]:
    """Returns the lines of a YAML file with every field's default and, above it, its documentation.

    Raises:
        TypeError: a field is not documented in its class.
    """
    documented = {
        item.arg_name: item.description for item in parse_docstring(inspect.getdoc(kind) or "").params
    }
    instance, lines, empty = kind(), [], dict(unfilled(kind))
    for field in dataclasses.fields(kind):
        text = documented.get(field.name)
        if not text:
            raise TypeError(f"{kind.__name__}.{field.name} is not documented under Args:")
        lines.append("")
        lines += [f"{' ' * indent}# {line}" for line in wrap(text, LINE - indent)]
        value = getattr(instance, field.name)
        if dataclasses.is_dataclass(value):
            lines += [f"{' ' * indent}{field.name}:", *describe_defaults(type(value), indent + 2)[1:]]
        else:
            declared = to_plain(empty.get(field.name, value))
            dumped = yaml.safe_dump([declared], default_flow_style=True, width=FAR)
            lines.append(f"{' ' * indent}{field.name}: {dumped.strip()[1:-1]}")
    return lines


def wrap(text: str, width: int) -> list[str]:
    """Folds a documentation into lines, with YAML's word for nothing."""
    return textwrap.wrap(re.sub(r"\bNone\b", "null", " ".join(text.split())), width)
