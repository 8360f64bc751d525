"""The folder of one run: its configuration, its finished stages, and who works in it.

A stage's result is a JSON file that appears at once and whole, so a run that was killed continues with
the first stage that has none.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from o3_lightning.common.errors import InputError
from o3_lightning.common.files import write_atomically, write_json
from o3_lightning.common.plain import leaves
from o3_lightning.common.yaml import read_mapping
from o3_lightning.training.processes import ALONE, Processes

__all__ = ["RunFolder"]

logger = logging.getLogger(__name__)

Result = dict[str, Any]
NOT_DECISIVE = ("logging", "output", "plugins", "take_over")
ABSENT = "absent"
TRAINER_BOOKKEEPING = (
    "accelerator",
    "devices",
    "enable_progress_bar",
    "log_every_n_steps",
    "logger",
    "num_nodes",
    "plugins",
    "profiler",
    "strategy",
)


class RunFolder:
    """A run folder that belongs to one configuration.

    Args:
        path: the folder; it need not exist yet. Several processes need one that all of them can read.
        processes: who work on the run together; the first one writes.
    """

    def __init__(self, path: str | Path, processes: Processes = ALONE) -> None:
        self.path, self.processes = Path(path), processes

    @property
    def store(self) -> Path:
        """The folder of the store."""
        return self.path / "store"

    @property
    def logs(self) -> Path:
        """The folder of the curves."""
        return self.path / "logs"

    @property
    def metrics_file(self) -> Path:
        """The file that a finished run has."""
        return self.path / "metrics.json"

    @property
    def report_file(self) -> Path:
        """The page that a finished run has."""
        return self.path / "report.html"

    @property
    def finished(self) -> bool:
        """Whether the run wrote its metrics and its report."""
        return self.processes.once(self.has_results)

    def has_results(self) -> bool:
        """The same as this process alone sees it."""
        return self.metrics_file.is_file() and self.report_file.is_file()

    @contextmanager
    def claim(self, configuration: Result, defaults: Result | None = None) -> Iterator[None]:
        """Makes the folder this process's own and binds it to a configuration.

        Args:
            configuration: plain dictionaries and scalars; sections that do not decide the outcome
                (logging, output, what is taken over, the trainer's bookkeeping) may differ between starts.
            defaults: a field that the folder's configuration lacks, for an earlier version knew none such, is
                no difference where it has this value now and the run is finished. None: every field counts.

        Raises:
            InputError: the folder cannot be written, another process works in it, or it holds a run with
                another configuration, an unfinished one of a version without some field, or a configuration
                that cannot be read.
        """
        lock = FileLock(self.path / ".lock")
        try:
            self.processes.once(lambda: self.take(lock, configuration, defaults or {}))
            yield
        finally:
            if self.processes.is_first:
                lock.release()

    def take(self, lock: FileLock, configuration: Result, defaults: Result) -> None:
        """Locks the folder and binds it."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout:
            raise InputError("another process is working in this run folder", path=self.path) from None
        except OSError as error:
            raise InputError(f"cannot be written: {error.strerror or error}", path=self.path) from error
        self.bind(configuration, defaults)

    def bind(self, configuration: Result, defaults: Result) -> None:
        """Writes the configuration, or checks that it is the one that the folder holds."""
        path = self.path / "config.yaml"
        if not path.is_file():
            write_atomically(path, yaml.safe_dump(configuration, sort_keys=False))
            return
        there, now, usual = (
            dict(leaves(decisive(one))) for one in (read_mapping(path), configuration, defaults)
        )
        new = [key for key in now if key not in there and key in usual and now[key] == usual[key]]
        known = {key: value for key, value in now.items() if key not in new}
        changed = [f"{key} is {old} there, {value} now" for key, old, value in differing(there, known)]
        if changed:
            raise InputError(
                f"this folder holds a run with another configuration ({'; '.join(changed)}); "
                f"--config {path} goes on as it began; or choose another --name, or remove the folder",
                path=self.path,
            )
        if new and not self.has_results():
            fields = ", ".join(f"{key}: {now[key]}" for key in new)
            raise InputError(
                f"this run was begun by a version without {fields}; its requests would not be treated alike. "
                f"Write the fields into {path} to go on with them, or choose another --name",
                path=self.path,
            )

    def stage(self, name: str, work: Callable[[], Result]) -> Result:
        """Returns a stage's result: from its file where the stage was finished before, else by doing it.

        Args:
            name: names the file; also the log line.
            work: computes the result, a JSON object; every process calls it, the first one's result counts.
        """
        found = self.result(name)
        if found is not None:
            logger.info("%s: done before", name)
            return found
        logger.info("%s ...", name)
        start = time.perf_counter()
        result = {**work(), "seconds": time.perf_counter() - start}
        if self.processes.is_first:
            write_json(self.stage_file(name), result)
        logger.info("%s: %.1f s", name, result["seconds"])
        return result

    def stage_file(self, name: str) -> Path:
        """The file of a stage's result."""
        return self.path / "stages" / f"{name}.json"

    def result(self, name: str) -> Result | None:
        """Returns a stage's result, None before it is finished.

        Raises:
            InputError: its file is damaged.
        """
        path = self.stage_file(name)
        return self.processes.once(lambda: read_result(path) if path.is_file() else None)

    def results(self) -> dict[str, Result]:
        """Returns every finished stage's result by name, in the order of the names; raises as `result`."""
        files = sorted((self.path / "stages").glob("*.json"))
        return {path.stem: read_result(path) for path in files}


def read_result(path: Path) -> Result:
    """Returns what a stage wrote."""
    try:
        return dict(json.loads(path.read_text()))
    except (ValueError, TypeError) as error:
        raise InputError(f"damaged; remove it and run again ({error})", path=path) from error


def decisive(configuration: Result) -> Result:
    """The part of a configuration that decides the outcome of a run; how many devices do it does not."""
    kept = {key: value for key, value in configuration.items() if key not in NOT_DECISIVE}
    trainer = kept.get("trainer") or {}
    return {**kept, "trainer": {k: v for k, v in trainer.items() if k not in TRAINER_BOOKKEEPING}}


def differing(there: Result, here: Result) -> Iterator[tuple[str, Any, Any]]:
    """Yields every field, by name, that has not the same value in both: its key and the two values."""
    for key in sorted({**there, **here}):
        old, new = there.get(key, ABSENT), here.get(key, ABSENT)
        if old != new:
            yield key, old, new
