"""Starts one process per device, so that `--trainer.devices 8` works without torchrun.

Each process runs the same command; they join in `training/processes.py`. Unlike torchrun, all end when the
parent is killed, and SIGTERM gives the exit status with which a stopped fit leaves.
"""

import os
import signal
import socket
import subprocess  # starts only this program, with its own arguments
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from o3_lightning.common.errors import InputError

CHILD = "import sys; sys.argv[0] = {!r}; from o3_lightning.commands.cli import work_for_parent as f; f()"
PROCESSES_PER_CORE = 4
GRACE_SECONDS = 20.0  # for the other processes to end once one has failed
POLL_SECONDS = 0.05
PARENT_IS_GONE = 143
USAGE_ERROR = 2


def launch(command: str, arguments: Sequence[str], trainer: Mapping[str, Any]) -> bool:
    """Runs a subcommand in as many processes as the trainer has devices, and waits for them.

    Returns:
        False if the caller has to run the command itself: on one device, or started by torchrun or srun.

    Raises:
        InputError: several nodes are wanted, which torchrun or srun must start.
        SystemExit: a process failed; with its status.
    """
    if "WORLD_SIZE" in os.environ or int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        return False
    count = processes_wanted(trainer)
    if count == 1:
        return False
    status = run_processes([command, *arguments], count)
    if status:
        sys.exit(status)
    return True


def processes_wanted(trainer: Mapping[str, Any]) -> int:
    """Returns the number of processes, one per device of a trainer on this machine.

    Raises:
        InputError: `trainer.num_nodes` is above 1, or `trainer.devices` is no number or more than can run.

    Example:
        >>> processes_wanted({"devices": 2}), processes_wanted({"devices": [0, 3], "num_nodes": 1})
        (2, 2)
    """
    if int(trainer.get("num_nodes") or 1) > 1:
        message = "start several machines with torchrun or srun; scripts/ has examples"
        raise InputError(message, field="trainer.num_nodes")
    devices = trainer.get("devices") or 1
    if isinstance(devices, list | tuple):
        return max(1, len(devices))
    if devices in ("auto", -1, "-1"):
        on_gpu = trainer.get("accelerator") != "cpu" and torch.cuda.is_available()
        return torch.cuda.device_count() if on_gpu else 1
    most = max(torch.cuda.device_count(), PROCESSES_PER_CORE * (os.cpu_count() or 1))
    try:
        wanted = int(devices)
    except (ValueError, OverflowError):
        raise InputError(f"expected a number, got {devices!r}", field="trainer.devices") from None
    if wanted > most:
        raise InputError(f"expected at most {most} on this machine, got {wanted}", field="trainer.devices")
    return max(1, wanted)


def run_processes(words: Sequence[str], count: int) -> int:
    """Runs this program `count` times and returns 0, or the status of the first that failed."""
    with tempfile.TemporaryDirectory() as folder, socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        free.close()
        errors = [Path(folder) / f"{rank}.err" for rank in range(count)]
        children = [start(words, rank, count, port, errors[rank]) for rank in range(count)]
        with forwarding_signals(children):
            first = wait_for(children)
        if first is None:
            return 0
        if children[0].returncode == USAGE_ERROR:
            return USAGE_ERROR  # the first process has printed the message
        if first > 0:
            sys.stderr.write(errors[first].read_text(errors="replace"))
        status = children[first].returncode
        return 128 - status if status < 0 else status


def start(words: Sequence[str], rank: int, count: int, port: int, errors: Path) -> subprocess.Popen[bytes]:
    """Starts one process; only the first one prints."""
    variables = {
        "RANK": rank,
        "LOCAL_RANK": rank,
        "WORLD_SIZE": count,
        "LOCAL_WORLD_SIZE": count,
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": port,
    }
    defaults = {
        "OMP_NUM_THREADS": str(max(1, (os.cpu_count() or 1) // count)),
        "TORCH_CPP_LOG_LEVEL": "ERROR",  # torch warns where no layer is left unused
    }
    environment = {**defaults, **os.environ, **{key: str(value) for key, value in variables.items()}}
    command = [sys.executable, "-c", CHILD.format(sys.argv[0]), *words]
    if rank == 0:
        return subprocess.Popen(command, env=environment, stdin=subprocess.PIPE)  # noqa: S603
    with errors.open("wb") as stderr:
        return subprocess.Popen(  # noqa: S603
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=stderr
        )


def wait_for(children: Sequence[subprocess.Popen[bytes]]) -> int | None:
    """Waits until all have ended; returns the rank of the first that failed, the lowest of several."""
    failed, deadline = None, float("inf")
    while True:
        codes = [child.poll() for child in children]
        if failed is None and any(codes):
            failed = next(rank for rank, code in enumerate(codes) if code)
            deadline = time.monotonic() + GRACE_SECONDS
        if None not in codes:
            return failed
        if time.monotonic() > deadline:
            for child in children:
                child.kill()
        time.sleep(POLL_SECONDS)


@contextmanager
def forwarding_signals(children: Sequence[subprocess.Popen[bytes]]) -> Iterator[None]:
    """Forwards SIGTERM to the processes; the terminal sends them Ctrl-C itself."""

    def forward(number: int, _: object) -> None:
        for child in children:
            child.send_signal(number)

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    earlier = {
        signal.SIGTERM: signal.signal(signal.SIGTERM, forward),
        signal.SIGINT: signal.signal(signal.SIGINT, lambda *_: None),
    }
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)


def end_with_parent() -> None:
    """Ends this process when its parent, which never writes to its standard input, is gone."""
    os.read(sys.stdin.fileno(), 1)
    os._exit(PARENT_IS_GONE)
