"""The trainer of one fit, and loggers whose step keeps rising over the many fits of one run."""

from __future__ import annotations

import csv
import importlib.util
import logging
import os
import secrets
import sys
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning import Callback, Trainer
from lightning.pytorch.loggers import CSVLogger, Logger

from o3_lightning.common.errors import InputError
from o3_lightning.common.files import write_atomically
from o3_lightning.training.distributed import trainer_placement

__all__ = ["LoggingConfig", "RunLogger", "StageLogger", "build_trainer"]

QUIET: dict[str, Any] = {
    "enable_checkpointing": False,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
    "log_every_n_steps": 1,
}
NOISY_LOGGERS = ("lightning.pytorch.utilities.rank_zero", "lightning.pytorch.accelerators.cuda")
WANDB_ID = "wandb_id.txt"
WANDB_MODES = ("auto", "online", "offline")


@dataclass(frozen=True)
class LoggingConfig:
    """Where the curves of a run go.

    Args:
        csv: write them to files in the run's folder.
        wandb: send them to Weights & Biases too; at the end also the tables, the report with the answers that
            it keeps (evaluation.samples), and the store.
        wandb_project: project there.
        wandb_group: runs of one group are shown together there; empty takes the run's name.
        wandb_mode: "auto" (online where a key is set in WANDB_API_KEY or by `wandb login`, offline
            elsewhere), "online" or "offline".

    Raises:
        InputError: an unknown mode.
    """

    csv: bool = True
    wandb: bool = False
    wandb_project: str = "o3-lightning"
    wandb_group: str = ""
    wandb_mode: str = "auto"

    def __post_init__(self) -> None:
        if self.wandb_mode not in WANDB_MODES:
            expected = f"expected one of {', '.join(WANDB_MODES)}, got {self.wandb_mode!r}"
            raise InputError(expected, field="logging.wandb_mode")


def build_trainer(
    trainer_options: Mapping[str, Any],
    *,
    max_epochs: int | None = None,
    logger: Logger | Sequence[Logger] | None = None,
    callbacks: Sequence[Callback] = (),
) -> Trainer:
    """Returns a trainer for one fit: no checkpoints, no summary, a progress bar only on a terminal.

    Args:
        trainer_options: options of `lightning.Trainer`; what is not None here has the last word, except that
            processes which have joined decide on devices and nodes.
        max_epochs: passes over the data, unless the options say otherwise.
        logger: where the curves go; None keeps none.
        callbacks: added to those of the options.

    Raises:
        InputError: the trainer refuses its options.
    """
    given = {key: value for key, value in trainer_options.items() if value is not None}
    options = {**QUIET, "max_epochs": max_epochs, "enable_progress_bar": sys.stderr.isatty()} | given
    options["logger"] = given.get("logger") or logger or False
    options["callbacks"] = [*as_list(given.get("callbacks")), *callbacks]
    options |= trainer_placement(options)
    for name in NOISY_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*The number of training batches.*")
    try:
        return Trainer(**options)
    except (TypeError, ValueError) as error:
        raise InputError(" ".join(str(error).split()), field="trainer") from error
    except Exception as error:  # Lightning's own kind of error for a device that is not there
        if type(error).__name__ != "MisconfigurationException":
            raise
        raise InputError(" ".join(str(error).split()), field="trainer") from error


def as_list(value: Any) -> list[Any]:
    """Returns a list of what may be nothing, one thing or several."""
    if value is None:
        return []
    return list(value) if isinstance(value, list | tuple) else [value]


class RunLogger:
    """The loggers of a run, shared by all its fits.

    Args:
        loggers: Lightning's loggers.
        first_step: where counting begins; above 0 when a run goes on after a stop.
    """

    def __init__(self, loggers: Sequence[Logger], first_step: int = 0) -> None:
        self.loggers, self.next_step = tuple(loggers), first_step

    @classmethod
    def open(cls, config: LoggingConfig, folder: Path, name: str = "run") -> RunLogger:
        """Returns the loggers that a configuration asks for, counting on where an earlier start ended.

        Raises:
            InputError: Weights & Biases is asked for and not installed.
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

        Weights & Biases is told the step: left to count by itself, it begins anew when an offline run goes on
        after a stop, and what it had would be written over.
        """
        for logger in self.loggers:
            if (run := wandb_run(logger)) is not None:
                run.log(dict(metrics), step=step)
            else:
                logger.log_metrics(dict(metrics), step=step)

    def wandb_runs(self) -> list[Any]:
        """Returns the open runs of Weights & Biases, none where it was not asked for."""
        return [run for logger in self.loggers if (run := wandb_run(logger)) is not None]

    def close(self) -> None:
        """Writes everything out; the next run of this process starts anew."""
        for logger in self.loggers:
            logger.finalize("success")
        for run in self.wandb_runs():
            run.finish()


class StageLogger(Logger):
    """Hands metrics of one fit to the run's loggers, with the stage's name and a step that never falls.

    Args:
        run: the loggers of the run.
        name: of the stage, e.g. "request_1/adapter".

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
        """Needed by Lightning; a stage has one."""
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
        """Does nothing: the run's configuration is written elsewhere."""

    def save(self) -> None:
        """Writes out what was logged so far."""
        for logger in self.run.loggers:
            logger.save()


def wandb_run(logger: Logger) -> Any:
    """Returns the run of a logger for Weights & Biases, None for other loggers."""
    from lightning.pytorch.loggers import WandbLogger

    return logger.experiment if isinstance(logger, WandbLogger) else None


def open_wandb(config: LoggingConfig, folder: Path, name: str) -> Logger:
    """Returns a logger for Weights & Biases, offline where there is no key; a restart continues its run."""
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
    """Returns a random id that a file keeps from one start to the next."""
    if not path.is_file():
        write_atomically(path, secrets.token_hex(8))
    return path.read_text()


def has_wandb_key() -> bool:
    """Whether Weights & Biases could log in."""
    if os.environ.get("WANDB_MODE") in ("offline", "disabled"):
        return False
    if os.environ.get("WANDB_API_KEY"):
        return True
    netrc = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    return netrc.is_file() and "api.wandb.ai" in netrc.read_text(errors="ignore")


def last_step(folder: Path) -> int:
    """Returns the highest step in the CSV files of earlier starts, -1 where there is none."""
    highest = -1
    for path in folder.glob("csv/version_*/metrics.csv"):
        with path.open(newline="") as stream:
            steps = [row["step"] for row in csv.DictReader(stream) if (row.get("step") or "").isdigit()]
        highest = max([highest, *map(int, steps)])
    return highest
