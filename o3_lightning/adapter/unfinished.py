"""A fit that was stopped goes on where it was: what it has done lies in one file meanwhile.

SIGTERM is heard at the end of a step, by all processes at the same one; whoever is killed without warning
loses what was done since the file was last written.
"""

from __future__ import annotations

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

__all__ = ["FitStopped", "Progress", "StepKeeper", "batches_left", "read_progress"]

logger = logging.getLogger(__name__)
SECONDS_BETWEEN = 300.0  # a step of a large model takes seconds, a file of its moments one
TERMINATED = 128 + signal.SIGTERM
MOMENTS = ("step", "exp_avg", "exp_avg_sq")  # AdamW's
RANDOM, RANDOM_GPU = "random", "random_gpu"


class FitStopped(SystemExit):
    """SIGTERM came during a fit; the process leaves with the status that shells give to it."""

    def __init__(self) -> None:
        super().__init__(TERMINATED)


@dataclass(frozen=True)
class Progress:
    """What a fit has done.

    Args:
        batches: that were trained on, over all epochs.
        steps: of the optimizer.
        seconds: of training, over all starts; what came after the last write is lost with the steps.
        curve: the loss and its parts, batch by batch.
        tensors: each factor, its moments, and the states of torch's generators.
    """

    batches: int = 0
    steps: int = 0
    seconds: float = 0.0
    curve: list[dict[str, float]] = field(default_factory=list)
    tensors: dict[str, Tensor] = field(default_factory=dict)

    def put_factors(self, factors: list[nn.Parameter]) -> None:
        """Writes the kept factors into those of a fresh adapter; nothing where none are kept."""
        with torch.no_grad():
            for number, factor in enumerate(factors if self.tensors else ()):
                factor.copy_(self.tensors[f"{number}"])

    def put_moments(self, optimizer: torch.optim.Optimizer, factors: list[nn.Parameter]) -> None:
        """Gives a fresh optimizer the kept moments, and torch's generators the kept states."""
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


def read_progress(path: Path, key: str, *, first: bool, processes: int) -> Progress:
    """Returns what an earlier start has kept, the same in every process; nothing where it was another fit's.

    Args:
        path: the file; it need not be there.
        key: tells fits apart.
        first: whether this is the first process, which alone reads.
        processes: how many there are.
    """
    found = [read_file(path, key) if first else None]
    if processes > 1:
        dist.broadcast_object_list(found, src=0)
    return found[0] or Progress()


def read_file(path: Path, key: str) -> Progress | None:
    """Returns the progress in a file, None where there is none that can be used."""
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="pt") as content:
            described = json.loads(content.metadata()["progress"])
            if described.pop("key") != key:
                logger.info("%s is of another fit; starting anew", path)
                return None
            tensors = {name: content.get_tensor(name) for name in content.keys()}  # noqa: SIM118
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        logger.warning("%s cannot be read (%s); starting anew", path, error)
        return None
    return Progress(**described, tensors=tensors)


class Rest:
    """The batches of a loader that are left; those done before are drawn once more and dropped.

    Args:
        loader: draws the same batches at every start.
        done: batches, over all epochs.
    """

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
    """Returns what is left to train on, and takes what is done off the trainer's limits."""
    if not done.batches:
        return loader
    logger.info("going on after %d steps", done.steps)
    limits: Any = trainer.fit_loop
    if limits.max_epochs is not None and limits.max_epochs > 0:
        limits.max_epochs -= done.batches // len(loader)
    if trainer.max_steps > 0:
        limits.epoch_loop.max_steps = max(0, trainer.max_steps - done.steps)
    return Rest(loader, done.batches)


class StepKeeper(Callback):
    """Writes down what a fit has done, now and then and before it stops.

    Args:
        factors: the trained parameters.
        curve: grows with every batch.
        done: what an earlier start did.
        path: of the file; None keeps nothing, and SIGTERM only stops.
        key: tells fits apart.
        seconds: between two writes.
    """

    def __init__(
        self,
        factors: list[nn.Parameter],
        curve: list[dict[str, float]],
        done: Progress,
        path: Path | None,
        key: str,
        seconds: float = SECONDS_BETWEEN,
    ) -> None:
        self.factors, self.curve, self.done, self.path, self.key = factors, curve, done, path, key
        self.seconds, self.stopping, self.steps = seconds, False, 0
        self.begun = self.written = time.monotonic()

    def on_train_start(self, trainer: Trainer, *_: Any) -> None:
        """Puts the moments in place, and hears SIGTERM from now on; the trainer puts the old handler back."""
        self.done.put_moments(trainer.optimizers[0], self.factors)
        self.stopping = trainer.received_sigterm
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self.hear)

    def hear(self, *_: Any) -> None:
        """Remembers the signal; a step is never cut in half."""
        self.stopping = True

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """After an optimizer step: keeps, if it is time, and stops, if any process was told to."""
        if trainer.global_step == self.steps:
            return
        self.steps = trainer.global_step
        stopping = agree(self.stopping, trainer.world_size)
        late = time.monotonic() - self.written > self.seconds
        if self.path is not None and trainer.is_global_zero and (stopping or late):
            self.write(self.path, trainer.optimizers[0])
        if stopping:
            agree(stopping, trainer.world_size)  # nobody leaves before the first process has written
            for one in trainer.loggers:
                one.save()
            logger.warning("stopped after %d steps; the same command goes on", self.done.steps + self.steps)
            raise FitStopped

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


def agree(stopping: bool, processes: int) -> bool:
    """Whether any process is to stop; all have to call it after the same step."""
    if processes == 1:
        return stopping
    flag = torch.tensor(int(stopping))
    dist.all_reduce(flag, op=dist.ReduceOp.MAX)
    return bool(flag)
