"""The command line: finds the subcommand, and turns errors into one line and an exit status.

The status is 0 on success, 2 on bad input (one line on stderr, no traceback), 130 on Ctrl-C. Only the chosen
command is imported, so that `--help` and `requests list` start quickly.
"""

import errno
import importlib
import logging
import os
import shlex
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from o3_lightning import __version__
from o3_lightning.commands import COMMANDS
from o3_lightning.common.errors import InputError, O3Error
from o3_lightning.common.program import program_name

NOISY_LOGGERS = (
    "httpx",
    "transformers",
    "datasets",
    "filelock",
    "fsspec",
    "lightning.pytorch.utilities.rank_zero",
    "lightning.fabric.utilities.seed",
)
NOISY_MODULES = ("lightning", "transformers")  # deprecations of their own code, which a user cannot fix
USAGE_ERROR = 2
# errors of a file system that its owner can fix: full, over quota or a limit, read-only, no permission
FIXABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
# paths that cannot exist: too long, through a file, in a circle, a folder in place of a file
NO_PATH = (errno.ENAMETOOLONG, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.EEXIST)
LONGEST_PATH = 200  # characters in a message
INTERRUPTED, TERMINATED = 130, 143  # Ctrl-C and SIGTERM
BROKEN_PIPE = 141
CONTINUES = ("run", "study", "evaluate", "reveal", "release", "requests")


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs one command, by default of `sys.argv`; ends the process with an exit status on an error."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    set_up_process()
    try:
        if any("\0" in word or word.encode(errors="ignore").decode() != word for word in words):
            raise InputError("expected words in UTF-8, without NUL")
        with exiting_on_sigterm():
            dispatch(words)
        sys.stdout.flush()
    except O3Error as error:
        stop(str(error))
    except BrokenPipeError:  # the reader of the output, such as head, has closed it
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(BROKEN_PIPE)
    except OSError as error:
        if error.errno in NO_PATH:
            stop(f"{str(error.filename)[:LONGEST_PATH]}: {error.strerror}")
        if error.errno not in FIXABLE:
            raise
        stop(f"{error.filename or 'writing'}: {error.strerror}{how_to_continue(words)}")
    except (KeyboardInterrupt, SystemExit) as error:
        status = error.code if isinstance(error, SystemExit) else INTERRUPTED
        if isinstance(error.__context__, KeyboardInterrupt):  # Lightning exits with 1 on Ctrl-C
            status = INTERRUPTED
        if status not in (INTERRUPTED, TERMINATED):
            raise
        sys.stderr.write(f"interrupted{how_to_continue(words)}\n")
        sys.exit(status)


@contextmanager
def exiting_on_sigterm() -> Iterator[None]:
    """Ends the command on SIGTERM with SystemExit(143), so that it can say how it continues.

    A process that another one started and waits for is left alone: the message is that one's.
    """
    alone = "LOCAL_RANK" not in os.environ and threading.current_thread() is threading.main_thread()
    if not alone or signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        yield
        return
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED))
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def how_to_continue(words: Sequence[str]) -> str:
    """Returns the end of a message about a command that was stopped: the next command, if it continues."""
    if not words or words[0] not in CONTINUES:
        return ""
    return f"; the same command continues where it stopped: {shlex.join([*program_name().split(), *words])}"


def stop(message: str) -> NoReturn:
    """Writes an error on one line and ends the process."""
    sys.stderr.write(f"error: {' '.join(message.split())}\n")
    sys.exit(USAGE_ERROR)


def dispatch(words: Sequence[str]) -> None:
    """Passes the words after the command's name to the command's module."""
    if not words or words[0] in ("-h", "--help"):
        sys.stdout.write(overview())
        return
    if words[0] == "--version":
        sys.stdout.write(f"o3-lightning {__version__}\n")
        return
    if words[0] not in COMMANDS:
        raise InputError(f"unknown command '{words[0]}'; known are {', '.join(COMMANDS)}")
    try:
        command = importlib.import_module(f"o3_lightning.commands.{words[0].replace('-', '_')}")
    except ModuleNotFoundError as error:  # a checkout of which nothing was installed
        if (error.name or "").startswith("o3_lightning"):
            raise
        raise InputError(
            f"{error.name} is not installed; 'make demo' or 'pip install -e .' installs it"
        ) from error
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
            f"{program_name()} COMMAND --help lists the options that matter, --help-all all of them.",
            "",
        ]
    )


def set_up_process() -> None:
    """Logs progress to stderr and silences notices of libraries."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s  %(message)s", datefmt="%H:%M:%S")
    for name in NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.ERROR)
    for module in NOISY_MODULES:
        warnings.filterwarnings("ignore", category=FutureWarning, module=module)
        warnings.filterwarnings("ignore", category=DeprecationWarning, module=module)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    if not sys.stderr.isatty():
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")


def work_for_parent() -> None:
    """Runs the command line in a process that `training.launch` started; it ends with its parent."""
    from o3_lightning.training.launch import end_with_parent

    threading.Thread(target=end_with_parent, daemon=True).start()
    main()
