"""Configurations from YAML files and the command line, for every command.

`--config` may be given several times: a later file overrides the fields that it names, and options override
all files. An overlay, a file to be given after another, may append to the run's name (`name: +_paper`) and
hold further fields for the benchmark chosen so far (`by_benchmark: {tofu: ...}`). Every mistake is an
`InputError` of one line that names the field and, for an unknown one, the nearest that exists.
"""

import argparse
import copy
import dataclasses
import difflib
import functools
import math
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import yaml
from jsonargparse import (  # type: ignore[attr-defined]
    ActionConfigFile,
    ArgumentError,
    ArgumentParser,
    Namespace,
    get_loader,
    set_loader,
)

from o3_lightning.attacks.registry import ATTACKS
from o3_lightning.common.errors import InputError
from o3_lightning.common.registry import load_plugin
from o3_lightning.common.shipped import find_file
from o3_lightning.common.yaml import read_document, read_mapping
from o3_lightning.data.config import BENCHMARKS
from o3_lightning.detector.config import preset_names
from o3_lightning.metrics.registry import METRICS
from o3_lightning.objectives.registry import FORGET, RETAIN, describe_parameters
from o3_lightning.run.config import BASELINES, TRAINER_DEFAULTS, RunConfig, unfilled
from o3_lightning.training.config import trainer_class

Kind = TypeVar("Kind")

PLUGINS = "plugins"
PARAMETERS = {"objective.forget.parameters": FORGET, "objective.retain.parameters": RETAIN}
NAMES: dict[str, Callable[[], list[str]]] = {
    "baseline": BASELINES.names,
    "data.name": BENCHMARKS.names,
    "detector.preset": preset_names,
    "objective.forget.name": FORGET.names,
    "objective.retain.name": RETAIN.names,
    "evaluation.metrics": METRICS.names,
    "evaluation.robustness.kinds": ATTACKS.names,
}
FIRST_SENTENCE, FEW = re.compile(r"(?<=\.) |; "), 20  # of the short help; names that it lists
BY_BENCHMARK = "by_benchmark"
PARSER_MODE = "limited_yaml"
SHORT = 200  # characters of a value that, without aliases, is safe to parse
LARGEST = 10**12  # of any number
LEAST_OPTIONS = {  # of the trainer
    "accumulate_grad_batches": 1,
    "devices": -1,
    "gradient_clip_val": 0,
    "max_epochs": -1,
    "max_steps": -1,
    "num_nodes": 1,
}
MOST_DEVICES = 10_000
DEVICES = re.compile(r"auto|-1|\d{1,5}(, ?\d{1,5})*,?")
APPEND = "+"


def parse_value(text: str) -> Any:
    """Returns the value of an option, or the content of a section's file, within the limits of YAML files."""
    if len(text) > SHORT or "&" in text:
        read_document(text)
    try:
        return get_loader("yaml")(text)
    except ValueError as error:  # a number of thousands of digits
        raise yaml.YAMLError(str(error)) from error


set_loader(PARSER_MODE, parse_value, (yaml.YAMLError,))


class ConfigParser(ArgumentParser):
    """A parser with a short help and, with `--help-all`, a long one.

    The help names what is registered at that time, plug-ins and installed packages included.

    Attributes:
        shown: the options that the short help shows; empty for all.
        hidden: sections that no help shows, because the command does not read them.
    """

    shown: Sequence[str] = ()
    hidden: Sequence[str] = ()

    def __init__(self, *arguments: Any, parser_mode: str = PARSER_MODE, **options: Any) -> None:
        super().__init__(*arguments, parser_mode=parser_mode, **options)

    @functools.cached_property
    def default_values(self) -> Namespace:
        """The default of every field, collected and checked once; no argument is added after that."""
        return self.get_defaults()

    def format_help(self, formatter: argparse.HelpFormatter | None = None) -> str:
        """Returns the help, with the registered names and parameters beside the options that take them."""
        documented = {action: action.help for action in self._actions}
        try:
            for action in self._actions:
                action.help = self.help_of(action)
            return super().format_help(formatter)
        finally:  # another help may show more
            for action, text in documented.items():
                action.help = text

    def help_of(self, action: argparse.Action) -> str:
        """Returns what this help says about an option."""
        if action.dest.split(".")[0] in self.hidden or (self.shown and action.dest not in self.shown):
            return argparse.SUPPRESS
        documented, registered = action.help or "", ""
        if action.dest in NAMES:
            names = NAMES[action.dest]()
            registered = ", ".join(names) if len(names) <= FEW or not self.shown else ""
        elif action.dest in PARAMETERS:
            registered = describe_parameters(PARAMETERS[action.dest])
        if self.shown:
            documented = FIRST_SENTENCE.split(documented)[0]
        if registered:
            registered = f" Registered: {registered.replace('%', '%%').removesuffix('.')}."
        return documented + registered


class HelpAll(argparse.Action):
    """The argument `--help-all`: shows every option, and ends the process as `--help` does."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Prints the long help."""
        parser.shown = ()
        parser.print_help()
        parser.exit()


class ConfigFile(ActionConfigFile):
    """The argument `--config FILE`: reads a path or a shipped name, strictly, and loads its plug-ins."""

    @staticmethod
    def apply_config(parser: ArgumentParser, cfg: Namespace, dest: str, value: str) -> None:
        """Merges a file into the configuration parsed so far.

        Raises:
            InputError: as `find_file`, `read_mapping` and `load_plugin`.
        """
        path = find_file(value)
        content = for_benchmark(read_mapping(path), cfg.get("data.name"))
        name = content.get("name")
        if isinstance(name, str) and name.startswith(APPEND):
            content["name"] = cfg["name"] + name.removeprefix(APPEND)
        if PLUGINS in content:
            content[PLUGINS] = [*(cfg.get(PLUGINS) or []), *load_plugins(content[PLUGINS], path.parent)]
        ActionConfigFile.apply_config(parser, cfg, dest, yaml.safe_dump(content))


def for_benchmark(content: Mapping[str, Any], name: Any) -> dict[str, Any]:
    """Returns the fields of a file, those that it holds for one benchmark included.

    Raises:
        InputError: what it holds by benchmark is not mappings of fields.
    """
    own = content.get(BY_BENCHMARK) or {}
    if not isinstance(own, dict) or not all(isinstance(fields, dict) for fields in own.values()):
        raise InputError("expected fields by benchmark", field=BY_BENCHMARK)
    shared = {key: value for key, value in content.items() if key != BY_BENCHMARK}
    return merge(shared, own.get(name, {}))


class PluginOption(argparse.Action):
    """The argument `--plugin MODULE`: imports the module at once, and records it as a field."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Imports a module and appends it to the field `plugins`."""
        namespace[PLUGINS] = [*(namespace[PLUGINS] or []), *load_plugins([values], Path())]


def load_plugins(names: Any, beside: Path) -> list[str]:
    """Imports plug-ins and returns the names by which the configuration records them."""
    if not isinstance(names, list | tuple):
        raise InputError(f"expected a list of modules, got {names!r}", field=PLUGINS)
    return [load_plugin(str(name), beside) for name in names]


def add_config_arguments(parser: ArgumentParser, *kinds: type, trainer: bool) -> None:
    """Adds `--config`, `--plugin` for runs, and every field of some dataclasses, sections with dots.

    With `trainer` the options of `lightning.Trainer` are added as `--trainer.*`.
    """
    parser.add_argument(
        "--config", action=ConfigFile, help="YAML file or shipped name; may be given again, the later wins"
    )
    if RunConfig in kinds:  # other configurations name nothing that can be registered
        parser.add_argument(
            "--plugin",
            action=PluginOption,
            default=argparse.SUPPRESS,
            metavar="MODULE",
            help="module, or file beside the configuration, that registers objectives, metrics, benchmarks, "
            "detectors or attacks; may be given again",
        )
    for kind in kinds:
        parser.add_class_arguments(kind, None, fail_untyped=True)
        parser.set_defaults(dict(unfilled(kind)))
    if trainer:
        parser.add_class_arguments(trainer_class(), "trainer", instantiate=False, fail_untyped=False)
        parser.set_defaults({f"trainer.{key}": value for key, value in TRAINER_DEFAULTS.items()})


def parse(parser: ConfigParser, arguments: Sequence[str]) -> Namespace:
    """Parses a command line.

    Raises:
        InputError: an unknown key, a value of the wrong type, a file that is missing or not YAML.
    """
    vars(parser).pop("print_config", None)  # asked of a parser, used again, by a command line that failed
    with one_line_errors(parser):
        parsed = parser.parse_args(list(arguments), namespace=parser.default_values, defaults=False)
    return parsed.clone(with_meta=False)  # no files' names beside the fields


@contextmanager
def one_line_errors(parser: ArgumentParser) -> Iterator[None]:
    """Raises the errors of a parser as InputErrors."""
    try:
        yield
    except ArgumentError as error:
        raise InputError(explain(str(error), known_keys(parser))) from error
    except UnicodeDecodeError as error:  # of a file that fills one section, such as --adapter FILE
        raise InputError(f"a section's file is not UTF-8: byte {error.start + 1}") from error


def build(kind: type[Kind], namespace: Namespace) -> Kind:
    """Returns a checked configuration, all of its sections as their dataclasses.

    Raises:
        InputError: a field holds a value outside its range; the message names the field.
    """
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]
    return kind(**{field.name: build_field(field, namespace[field.name], field.name) for field in fields})


def build_field(field: dataclasses.Field[Any], value: Any, name: str) -> Any:
    """Returns the value of a field; that of a section as its dataclass."""
    if not dataclasses.is_dataclass(field.default_factory) or dataclasses.is_dataclass(value):
        if value is None and "None" not in str(field.type):
            raise InputError("expected a value, got null", field=name)
        check_value(name, value)
        return value
    kind: Any = field.default_factory
    given, inner = section(name, value), {one.name: one for one in dataclasses.fields(kind)}
    return kind(**{key: build_field(inner[key], part, f"{name}.{key}") for key, part in vars(given).items()})


def check_value(name: str, value: Any) -> None:
    """Raises InputError for a number that is not finite or too large, or a NUL, in a field or its items.

    Comparisons with NaN would be False, so that no range would refuse it.
    """
    if isinstance(value, float) and not math.isfinite(value):
        raise InputError(f"expected a finite number, got {value}", field=name)
    if isinstance(value, int | float) and abs(value) > LARGEST:
        raise InputError(f"expected a number of at most {LARGEST:.0e}, got {str(value)[:40]}", field=name)
    if isinstance(value, str) and "\0" in value:
        raise InputError(f"expected text without NUL, got {value!r:.60}", field=name)
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    for each in inner:
        check_value(name, each)


def section(name: str, value: Any) -> Namespace:
    """Returns a parsed section; InputError if the value is not a mapping of fields."""
    if not isinstance(value, Namespace):
        raise InputError(f"expected the fields of a section, got {value!r}", field=name)
    return value


def trainer_options(namespace: Namespace) -> dict[str, Any]:
    """Returns the options for `lightning.Trainer`.

    Raises:
        InputError: `trainer` is no mapping of options, or an option has a value that none can have.
    """
    options: dict[str, Any] = section("trainer", namespace["trainer"]).as_dict()
    for name, value in options.items():
        check_value(f"trainer.{name}", value)
        least = LEAST_OPTIONS.get(name)
        if least is not None and isinstance(value, int | float) and value < least:
            raise InputError(f"expected {least} or more, got {value}", field=f"trainer.{name}")
    devices = options.get("devices")
    wrong = isinstance(devices, str) and not DEVICES.fullmatch(devices)
    if wrong or (isinstance(devices, int) and devices > MOST_DEVICES):
        raise InputError(f"expected a number of devices, got {devices!r:.60}", field="trainer.devices")
    return options


def config_from(values: Mapping[str, Any]) -> tuple[RunConfig, dict[str, Any]]:
    """Returns the configuration and the trainer's options from nested dictionaries, as from a YAML file.

    Fields and sections that are missing take their defaults.

    Raises:
        InputError: an unknown key, a value of the wrong type or outside its range.
    """
    parser, content = object_parser(), dict(values)
    if PLUGINS in content:
        content[PLUGINS] = load_plugins(content[PLUGINS], Path())
    with one_line_errors(parser):  # the given fields alone: all of them take thirty times as long
        given = parser.parse_object(content, defaults=False)
    namespace = parser.default_values.clone().update(given)
    return build(RunConfig, namespace), trainer_options(namespace)


@functools.cache
def object_parser() -> ConfigParser:
    """Returns the parser of nested dictionaries, built once: a study checks dozens of configurations."""
    parser = ConfigParser(exit_on_error=False)
    add_config_arguments(parser, RunConfig, trainer=True)
    return parser


def merge(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns nested fields with some of them changed, section by section; the arguments stay as they are."""
    merged = copy.deepcopy(dict(base))
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = merge(merged[key], value) if both else copy.deepcopy(value)
    return merged


def known_keys(parser: ArgumentParser) -> list[str]:
    """Returns every key that a parser accepts, sections with dots."""
    return sorted({action.dest for action in parser._actions} - {"help", "print_config", "print_shtab"})


def explain(message: str, keys: Sequence[str]) -> str:
    """Returns a parser's message in one line, with the nearest known key for an unknown one."""
    text = " ".join(message.split())
    unknown = re.search(r"(?:unrecognized arguments: --|accept option '|Option '|Key '|key ')([\w.-]+)", text)
    if unknown is None or unknown.group(1) in keys:
        hint = "; a list is written '[one, two]'" if "<class 'tuple'>" in text else ""
        return re.sub(r"an? <class '(\w+)'>", r"a value of type \1", text) + hint
    section = re.search(r"Group '([\w.]+)' does not accept", text)
    name = f"{section.group(1)}.{unknown.group(1)}" if section else unknown.group(1)
    fields = [key for key in keys if not name.startswith(f"{key}.")]  # its own section is no help
    near = difflib.get_close_matches(name, fields, n=1, cutoff=0.5) or [
        key for key in fields if key.rsplit(".", 1)[-1] == name.rsplit(".", 1)[-1]
    ]
    hint = f"; did you mean '{near[0]}'?" if near else "; --help lists the known keys"
    return f"unknown key '{name}'{hint}"
