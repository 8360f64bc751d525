"""Continuing a stopped fit: its progress is kept in one file.

SIGTERM and Ctrl-C take effect at the end of a step, in all processes at the same one; a second Ctrl-C and
SIGKILL lose the progress since the file was last written.
"""

import json
import logging
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from lightning import Callback, Trainer
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor, nn

from o3_lightning.adapter.batches import Batches
from o3_lightning.common.files import write_atomically

logger = logging.getLogger(__name__)
SECONDS_BETWEEN = 300.0  # writing takes about a second for a large model
MOMENTS = ("step", "exp_avg", "exp_avg_sq", "momentum", "hessian_moment")  # of AdamW and of Sophia
RANDOM, RANDOM_GPU = "random", "random_gpu"


class FitStopped(SystemExit):
    """A signal stopped a fit; the process exits with the usual status, 143 for SIGTERM and 130 for Ctrl-C."""

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__(128 + number)


@dataclass(frozen=True)
class Progress:
    """The progress of a fit at the time of the last write.

    Args:
        batches: trained on so far, over all epochs.
        steps: of the optimizer.
        seconds: of training, over all starts.
        curve: the loss and its parts for each batch.
        tensors: each factor, its moments, and the states of torch's generators.
    """

    batches: int = 0
    steps: int = 0
    seconds: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)

    def put_factors(self, factors: list[nn.Parameter]) -> None:
        """Copies the kept factors, if there are any, into those of a fresh adapter."""
        with torch.no_grad():
            for number, factor in enumerate(factors if self.tensors else ()):
                factor.copy_(self.tensors[f"{number}"])

    def put_moments(self, optimizer: torch.optim.Optimizer, factors: list[nn.Parameter]) -> None:
        """Restores the moments of the optimizer and the states of torch's generators."""
        for number, factor in enumerate(factors):
            kept = {name: self.tensors.get(f"{number}.{name}") for name in MOMENTS}
            state = {name: value for name, value in kept.items() if value is not None}
            if state:  # a factor without a gradient has none
                optimizer.state[factor] = {
                    name: value if name == "step" else value.to(factor.device)
                    for name, value in state.items()
                }
        if RANDOM in self.tensors:
            torch.set_rng_state(self.tensors[RANDOM])
        if RANDOM_GPU in self.tensors and torch.cuda.is_available():
            torch.cuda.set_rng_state(self.tensors[RANDOM_GPU])


def read_progress(path: Path | None, key: str) -> Progress:
    """Returns the progress in a file of the fit with this key; empty if there is none that can be used."""
    if path is None or not path.is_file():
        return Progress()
    try:
        with safe_open(path, framework="pt") as content:
            described = json.loads(content.metadata()["progress"])
            if described.pop("key") != key:
                logger.info("%s belongs to another fit; starting anew", path)
                return Progress()
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        logger.warning("%s cannot be read (%s); starting anew", path, error)
        return Progress()
    return Progress(**described, tensors=tensors)


class Rest:
    """The remaining batches of a loader that draws the same ones at every start; `done` ones are skipped."""

    def __init__(self, loader: Batches, done: int) -> None:
        self.loader, self.done = loader, done

    def __iter__(self) -> Iterator[Any]:
        while self.done >= len(self.loader):
            self.done -= sum(1 for _ in self.loader)
        rest = iter(self.loader)
        for _ in range(self.done):
            next(rest)
        self.done = 0
        yield from rest


def batches_left(trainer: Trainer, loader: Batches, done: Progress) -> Any:
    """Returns the remaining batches, and lowers the trainer's limits by what is done."""
    if not done.batches:
        return loader
    logger.info("continuing after %d steps", done.steps)
    limits: Any = trainer.fit_loop
    if limits.max_epochs is not None and limits.max_epochs > 0:
        limits.max_epochs -= done.batches // len(loader)
    if trainer.max_steps > 0:
        limits.epoch_loop.max_steps = max(0, trainer.max_steps - done.steps)
    return Rest(loader, done.batches)


class StepKeeper(Callback):
    """Writes the progress of a fit from time to time and before it stops.

    `curve` grows with every batch; `done` is the progress of an earlier start; the key identifies the fit.
    Without a path it keeps nothing, and only stops on a signal.
    """

    def __init__(
        self,
        factors: list[nn.Parameter],
        curve: list[dict[str, float]],
        done: Progress,
        path: Path | None,
        key: str,
    ) -> None:
        self.factors, self.curve, self.done, self.path, self.key = factors, curve, done, path, key
        self.signal, self.steps = 0, 0
        self.begun = self.written = time.monotonic()

    def on_train_start(self, trainer: Trainer, *_: Any) -> None:
        """Restores the moments and handles both signals; the trainer restores the old handlers."""
        self.done.put_moments(trainer.optimizers[0], self.factors)
        self.signal = signal.SIGTERM if trainer.received_sigterm else 0
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self.hear)
            if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                signal.signal(signal.SIGINT, self.hear)

    def hear(self, number: int, *_: Any) -> None:
        """Remembers the signal until the step ends; a second Ctrl-C does not wait for that."""
        if number == signal.SIGINT:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        self.signal = number

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """After an optimizer step: writes if it is time, and stops if any process received a signal."""
        if trainer.global_step == self.steps:
            return
        self.steps = trainer.global_step
        stopping = agree(self.signal, trainer.world_size)
        late = time.monotonic() - self.written > SECONDS_BETWEEN
        if self.path is not None and trainer.is_global_zero and (stopping or late):
            self.write(self.path, trainer.optimizers[0])
        if stopping:
            agree(stopping, trainer.world_size)  # no process exits before the first one has written
            for one in trainer.loggers:
                one.save()
            logger.warning("stopped after %d steps; the same command continues", self.done.steps + self.steps)
            raise FitStopped(stopping)

    def write(self, path: Path, optimizer: torch.optim.Optimizer) -> None:
        """Writes the file."""
        tensors = {RANDOM: torch.get_rng_state()}
        if torch.cuda.is_available():
            tensors[RANDOM_GPU] = torch.cuda.get_rng_state()
        for number, factor in enumerate(self.factors):
            tensors[f"{number}"] = factor.detach().contiguous()
            state = optimizer.state.get(factor, {})
            tensors |= {f"{number}.{name}": value.contiguous() for name, value in state.items()}
        described = {
            "key": self.key,
            "batches": len(self.curve),
            "steps": self.done.steps + self.steps,
            "seconds": self.done.seconds + time.monotonic() - self.begun,
            "curve": self.curve,
        }
        write_atomically(path, save(tensors, metadata={"progress": json.dumps(described)}))
        self.written = time.monotonic()


def agree(number: int, processes: int) -> int:
    """Returns a signal that any process received, or 0; all processes must call it after the same step."""
    if processes == 1:
        return number
    highest = torch.tensor(number)
    dist.all_reduce(highest, op=dist.ReduceOp.MAX)
    return int(highest)
