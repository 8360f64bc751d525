"""Loggers of a run: one step counter that keeps rising over its many fits and restarts."""

from __future__ import annotations

import csv
import importlib.util
import os
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Self

from lightning.pytorch.loggers import CSVLogger, Logger

from o3_lightning.common.errors import InputError
from o3_lightning.common.files import write_atomically
from o3_lightning.training.config import LoggingConfig

WANDB_ID = "wandb_id.txt"


class RunLogger:
    """Lightning's loggers of a run, shared by all its fits; `first_step` is above 0 in a continued run."""

    def __init__(self, loggers: Sequence[Logger], first_step: int = 0) -> None:
        self.loggers, self.next_step = tuple(loggers), first_step

    @classmethod
    def open(cls, config: LoggingConfig, folder: Path, name: str = "run") -> Self:
        """Returns the configured loggers, which continue the steps of an earlier start.

        Raises:
            InputError: Weights & Biases is wanted and not installed.
        """
        loggers: list[Logger] = []
        if config.csv:
            loggers.append(CSVLogger(str(folder), name="csv"))
        if config.wandb:
            loggers.append(open_wandb(config, folder, name))
        return cls(loggers, last_step(folder) + 1)

    def stage(self, name: str) -> StageLogger:
        """Returns a logger for the next fit; its metrics are called "name/metric"."""
        return StageLogger(self, name)

    def log(self, metrics: Mapping[str, float], step: int) -> None:
        """Logs at a step of the run.

        Weights & Biases gets the step explicitly: its own counter restarts at 0 when an offline run continues
        after a stop, and would overwrite the earlier points.
        """
        for logger in self.loggers:
            if (run := wandb_run(logger)) is not None:
                run.log(dict(metrics), step=step)
            else:
                logger.log_metrics(dict(metrics), step=step)

    def wandb_runs(self) -> list[Any]:
        """Returns the open runs of Weights & Biases; none if it is off."""
        return [run for logger in self.loggers if (run := wandb_run(logger)) is not None]

    def close(self) -> None:
        """Flushes and ends all loggers."""
        for logger in self.loggers:
            logger.finalize("success")
        for run in self.wandb_runs():
            run.finish()


class StageLogger(Logger):
    """Passes the metrics of one fit (stage) to the run's loggers, prefixed with its name, at the run's step.

    Example:
        >>> StageLogger(RunLogger([]), "request_1/adapter").prefixed({"loss": 1.0, "epoch": 0})
        {'request_1/adapter/loss': 1.0}
    """

    def __init__(self, run: RunLogger, name: str) -> None:
        super().__init__()
        self.run, self.stage_name, self.first_step = run, name, run.next_step

    @property
    def name(self) -> str:
        """The stage's name."""
        return self.stage_name

    @property
    def version(self) -> int:
        """Required by Lightning; always 0."""
        return 0

    def prefixed(self, metrics: Mapping[str, float]) -> dict[str, float]:
        """Returns metrics under the stage's name, without Lightning's epoch counter."""
        return {f"{self.stage_name}/{key}": value for key, value in metrics.items() if key != "epoch"}

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Logs at the run's step."""
        place = self.run.next_step if step is None else self.first_step + step
        self.run.next_step = max(self.run.next_step, place + 1)
        named = self.prefixed(metrics)
        if named:
            self.run.log(named, place)

    def log_hyperparams(self, params: Any, *arguments: Any, **options: Any) -> None:
        """Does nothing: the run's folder holds the configuration."""

    def save(self) -> None:
        """Flushes the run's loggers."""
        for logger in self.run.loggers:
            logger.save()


def wandb_run(logger: Logger) -> Any:
    """Returns the Weights & Biases run of a logger, None for other loggers."""
    from lightning.pytorch.loggers import WandbLogger

    return logger.experiment if isinstance(logger, WandbLogger) else None


def open_wandb(config: LoggingConfig, folder: Path, name: str) -> Logger:
    """Returns a Weights & Biases logger, offline if there is no key; a restart continues the same run."""
    if importlib.util.find_spec("wandb") is None:
        raise InputError("needs the package wandb; try: pip install wandb", field="logging.wandb")
    from lightning.pytorch.loggers import WandbLogger

    folder.mkdir(parents=True, exist_ok=True)
    offline = config.wandb_mode == "offline" or (config.wandb_mode == "auto" and not has_wandb_key())
    logger: Logger = WandbLogger(
        name=name,
        id=kept_id(folder / WANDB_ID),
        resume="allow",
        group=config.wandb_group or name,
        save_dir=str(folder),
        project=config.wandb_project,
        offline=offline,
    )
    return logger


def kept_id(path: Path) -> str:
    """Returns the random id in a file, which is written on the first call."""
    if not path.is_file():
        write_atomically(path, secrets.token_hex(8))
    return path.read_text()


def has_wandb_key() -> bool:
    """Whether a key for Weights & Biases is set."""
    if os.environ.get("WANDB_MODE") in ("offline", "disabled"):
        return False
    if os.environ.get("WANDB_API_KEY"):
        return True
    netrc = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    return netrc.is_file() and "api.wandb.ai" in netrc.read_text(errors="ignore")


def last_step(folder: Path) -> int:
    """Returns the highest step in the CSV files of earlier starts; -1 if there is none."""
    highest = -1
    for path in folder.glob("csv/version_*/metrics.csv"):
        with path.open(newline="") as stream:
            steps = [row["step"] for row in csv.DictReader(stream) if (row.get("step") or "").isdigit()]
        highest = max([highest, *map(int, steps)])
    return highest
