"""The folder of one run: its configuration, the results of its stages, and its lock.

The result of a stage is a JSON file that is written atomically, so a killed run continues with the first
stage that has none.
"""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml
from filelock import FileLock, Timeout

from o3_lightning.common.errors import InputError
from o3_lightning.common.files import read_result, write_atomically, write_json
from o3_lightning.common.plain import leaves
from o3_lightning.common.yaml import read_mapping
from o3_lightning.training.processes import ALONE, Processes

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
        path: the folder; it need not exist yet. All processes must be able to read it.
        processes: the processes of the run; the first one writes.

    Attributes:
        store: folder of the store.
        logs: folder of the training curves.
        metrics_file: its existence, with that of `report_file`, marks a finished run.
        report_file: the HTML report.
    """

    def __init__(self, path: str | Path, processes: Processes = ALONE) -> None:
        self.path, self.processes = Path(path), processes
        self.store, self.logs = self.path / "store", self.path / "logs"
        self.metrics_file, self.report_file = self.path / "metrics.json", self.path / "report.html"

    @property
    def finished(self) -> bool:
        """Whether the run wrote its metrics and its report; the same in every process."""
        return self.processes.once(lambda: self.metrics_file.is_file() and self.report_file.is_file())

    @contextmanager
    def claim(self, configuration: Result) -> Iterator[None]:
        """Locks the folder for this run and binds it to a configuration of plain dictionaries and scalars.

        Fields that do not decide the outcome (logging, output, the reused run, the trainer's bookkeeping) may
        differ between starts.

        Raises:
            InputError: the folder cannot be written, another process uses it, or it holds a run with another
                configuration or one that cannot be read.
        """
        lock = FileLock(self.path / ".lock")
        try:
            self.processes.once(lambda: self.take(lock, configuration))
            yield
        finally:
            if self.processes.is_first:
                lock.release()

    def take(self, lock: FileLock, configuration: Result) -> None:
        """Locks the folder, and writes its configuration or compares it with the one in the folder."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            lock.acquire(timeout=0)
        except Timeout:
            raise InputError("another process is working in this run folder", path=self.path) from None
        except OSError as error:
            raise InputError(f"cannot be written: {error.strerror or error}", path=self.path) from error
        path = self.path / "config.yaml"
        if not path.is_file():
            write_atomically(path, yaml.safe_dump(configuration, sort_keys=False))
            return
        there, now = (dict(leaves(decisive(one))) for one in (read_mapping(path), configuration))
        changed = [f"{key} is {old} there, {value} now" for key, old, value in differing(there, now)]
        if changed:
            raise InputError(
                f"this folder holds a run with another configuration ({'; '.join(changed)}); "
                f"--config {path} continues it; or choose another --name, or remove the folder",
                path=self.path,
            )

    def stage(self, name: str, work: Callable[[], Result]) -> Result:
        """Returns a stage's result: from its file if the stage is finished, otherwise by running it.

        `work` computes the result, a JSON object, in every process; the first one's is written. One that was
        reused has its own `seconds`, others get those that the work took.
        """
        found = self.result(name)
        if found is not None:
            logger.info("%s: done before", name)
            return found
        logger.info("%s ...", name)
        start = time.perf_counter()
        found = work()
        result = {"seconds": time.perf_counter() - start, **found}
        if self.processes.is_first:
            write_json(self.stage_file(name), result, private=True)
        logger.info("%s: %.1f s", name, result["seconds"])
        return result

    def stage_file(self, name: str) -> Path:
        """The file of a stage's result."""
        return self.path / "stages" / f"{name}.json"

    def result(self, name: str) -> Result | None:
        """Returns a stage's result, None if it is not finished; InputError if its file is damaged."""
        path = self.stage_file(name)
        return self.processes.once(lambda: read_result(path) if path.is_file() else None)

    def results(self) -> dict[str, Result]:
        """Returns the result of every finished stage, sorted by name; InputError if a file is damaged."""
        files = sorted((self.path / "stages").glob("*.json"))
        return {path.stem: read_result(path) for path in files}


def decisive(configuration: Result) -> Result:
    """Returns the fields that decide the outcome of a run; its devices and empty fields do not."""
    kept = {key: value for key, value in configuration.items() if key not in NOT_DECISIVE and value != ""}
    trainer = kept.get("trainer") or {}
    return {**kept, "trainer": {k: v for k, v in trainer.items() if k not in TRAINER_BOOKKEEPING}}


def differing(there: Result, here: Result) -> Iterator[tuple[str, Any, Any]]:
    """Yields the key and both values of every field that differs, sorted by key."""
    for key in sorted({**there, **here}):
        old, new = there.get(key, ABSENT), here.get(key, ABSENT)
        if old != new:
            yield key, old, new
