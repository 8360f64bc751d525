"""The command line: one typed subcommand for each thing that a user does.

Exit status 0 on success; 2 on bad input, with one clear line on stderr and no traceback; 130 on Ctrl-C.
Only the chosen command imports what it needs, so that `--help` and `requests list` answer at once.
"""

from __future__ import annotations

import errno
import importlib
import logging
import os
import sys
import threading
import warnings
from collections.abc import Sequence
from typing import NoReturn

from o3_lightning import __version__
from o3_lightning.common.errors import InputError, O3Error
from o3_lightning.common.program import program_name

__all__ = ["main", "work_for_parent"]

COMMANDS = {
    "run": "unlearn every request of a configuration, one after the other, evaluate and report",
    "detector": "train and fit the detector of one request alone",
    "adapter": "train the adapter of one request alone",
    "evaluate": "measure a finished or unfinished run as its store stands now",
    "estimate": "tell the time and memory of a run before it starts",
    "study": "compare whole runs: every variant of a study with every seed, one table",
    "report": "draw a finished run's report again, or put several runs side by side",
    "ask": "answer a question from the base and the gated model, side by side",
    "reveal": "make a model say what it knows about a topic, and write that as a request",
    "release": "unlearn by subtracting adapters from the weights, round by round, with a way back",
    "configs": "list the shipped configurations, or copy one to change it",
    "requests": "list, show, revoke, restore, verify or remove the requests of a store",
}
NOISY_LOGGERS = (
    "httpx",
    "transformers",
    "datasets",
    "filelock",
    "fsspec",
    "lightning.pytorch.utilities.rank_zero",
    "lightning.fabric.utilities.seed",
)
NOISY_MODULES = ("lightning", "transformers")  # their own deprecations; nothing that a user can mend
USAGE_ERROR = 2
# of a file system, and for its owner to mend: full, over its quota, read only, or not ours
MENDABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
INTERRUPTED = 130
READER_IS_GONE = 141


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command and leaves the process with its exit status.

    Args:
        arguments: the command line without the program's name; None takes the process's own.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    set_up_process()
    try:
        dispatch(words)
        sys.stdout.flush()
    except O3Error as error:
        tell(str(error))
    except BrokenPipeError:  # whoever reads the output, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(READER_IS_GONE)
    except OSError as error:
        if error.errno not in MENDABLE:
            raise
        tell(f"{error.filename or 'writing'}: {error.strerror}; the same command continues where it stopped")
    except KeyboardInterrupt:
        sys.stderr.write("interrupted; the same command continues where it stopped\n")
        sys.exit(INTERRUPTED)


def tell(message: str) -> NoReturn:
    """Writes a mistake on one line and leaves the process."""
    sys.stderr.write(f"error: {' '.join(message.split())}\n")
    sys.exit(USAGE_ERROR)


def dispatch(words: Sequence[str]) -> None:
    """Hands the words after the command's name to the command's own module."""
    if not words or words[0] in ("-h", "--help"):
        sys.stdout.write(overview())
        return
    if words[0] == "--version":
        sys.stdout.write(f"o3-lightning {__version__}\n")
        return
    if words[0] not in COMMANDS:
        raise InputError(f"unknown command '{words[0]}'; known are {', '.join(COMMANDS)}")
    command = importlib.import_module(f"o3_lightning.commands.{words[0]}")
    command.main(list(words[1:]))


def overview() -> str:
    """The text of `--help`."""
    width = max(map(len, COMMANDS))
    lines = [f"  {name:{width}}  {text}" for name, text in COMMANDS.items()]
    return "\n".join(
        [
            f"usage: {program_name()} COMMAND [--config FILE] [--field value ...]",
            "",
            "Continual unlearning of language models.",
            "",
            "commands:",
            *lines,
            "",
            f"{program_name()} COMMAND --help lists the fields; --print_config prints them as YAML.",
            "",
        ]
    )


def set_up_process() -> None:
    """Sends progress to stderr and quiets libraries that talk about themselves."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s  %(message)s", datefmt="%H:%M:%S")
    for name in NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    for module in NOISY_MODULES:
        warnings.filterwarnings("ignore", category=FutureWarning, module=module)
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=module)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")


def work_for_parent() -> None:
    """Runs the command line in a process started by `training.launch`; ends when the parent process does."""
    from o3_lightning.training.launch import end_with_parent

    threading.Thread(target=end_with_parent, daemon=True).start()
    main()
