"""Settings of loggers and of `lightning.Trainer`, without importing Lightning, which takes seconds."""

import ast
import dataclasses
import functools
import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal, Optional, Union, get_type_hints

from o3_lightning.common.checks import check_choice

WANDB_MODES = ("auto", "online", "offline")


@dataclasses.dataclass(frozen=True)
class LoggingConfig:
    """Where the curves of a run go.

    Args:
        csv: write them to files in the run's folder.
        wandb: send them to Weights & Biases too; at the end also tables of figures, the configuration and
            the store, none of which holds prompts or answers.
        wandb_text: send what holds prompts and answers of forget sets, too: the report, its sample answers
            (evaluation.samples) and the prompts that detectors got wrong.
        wandb_project: project there.
        wandb_group: runs of one group are shown together there; empty takes the run's name.
        wandb_mode: "auto" (online where a key is set in WANDB_API_KEY or by `wandb login`, offline
            elsewhere), "online" or "offline".

    Raises:
        InputError: an unknown mode.
    """

    csv: bool = True
    wandb: bool = False
    wandb_text: bool = False
    wandb_project: str = "o3-lightning"
    wandb_group: str = ""
    wandb_mode: str = "auto"

    def __post_init__(self) -> None:
        check_choice(self, "logging", "wandb_mode", WANDB_MODES)


class KnownTypes(dict[str, Any]):
    """The types that an option on the command line can have; every other one is Any."""

    def __missing__(self, name: str) -> Any:
        """Returns Any, for a class of Lightning."""
        return Any


@functools.cache
def trainer_class() -> type:
    """Returns a dataclass with the options of the installed `lightning.Trainer`, read from its source file.

    Its docstring is that of the trainer; options that take an object of Lightning accept anything.
    """
    spec = importlib.util.find_spec("lightning")
    assert spec is not None
    assert spec.origin is not None
    source = (Path(spec.origin).parent / "pytorch" / "trainer" / "trainer.py").read_text(encoding="utf-8")
    functions = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef))
    init = next(node for node in functions if node.name == "__init__")
    options = list(zip(init.args.kwonlyargs, init.args.kw_defaults, strict=True))
    written = {option.arg: ast.unparse(option.annotation) for option, _ in options if option.annotation}
    known = KnownTypes(
        {kind.__name__: kind for kind in (bool, dict, float, int, list, str)},
        Literal=Literal,
        Optional=Optional,
        Union=Union,
    )
    types = {name: resolve(text, known) for name, text in written.items()}
    made = dataclasses.make_dataclass(
        "Trainer",
        [
            (option.arg, types[option.arg], dataclasses.field(default=ast.literal_eval(default)))
            for option, default in options
            if default is not None
        ],
    )
    made.__doc__ = ast.get_docstring(init)
    return made


def resolve(annotation: str, known: KnownTypes) -> Any:
    """Returns the type of an annotation; Any where it subscripts a class that is not known."""
    holder: Any = SimpleNamespace(__annotations__={"it": annotation})
    try:
        return get_type_hints(holder, {}, known)["it"]
    except TypeError:
        return Any
