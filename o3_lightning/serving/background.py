"""Trains the adapters of requests that were added to a running server, each in a process of its own."""

from __future__ import annotations

import json
import logging
import os
import subprocess  # starts only this program
import sys
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

import yaml

from o3_lightning.common.plain import to_plain
from o3_lightning.run.config import RunConfig

logger = logging.getLogger(__name__)
NICENESS = 10  # answers come first where processors are scarce


class BackgroundTraining:
    """Runs `requests train` for one request at a time, with low priority.

    In a process of its own a training is reproducible whatever is answered meanwhile, and its failure does
    not reach the server. The forget set is passed through a pipe and never written to disk.

    Args:
        store: folder of the store.
        config: settings of the training; the base model is loaded again from it.
        trainer: options of `lightning.Trainer`.

    Attributes:
        states: "waiting", "running" or "failed" by request id; a request that is trained is not in it.
    """

    def __init__(self, store: Path, config: RunConfig, trainer: Mapping[str, Any]) -> None:
        self.store, self.settings = store, {**to_plain(config), "trainer": to_plain(dict(trainer))}
        self.states: dict[str, str] = {}
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="training")
        self._lock, self._stopped = Lock(), False
        self._process: subprocess.Popen[bytes] | None = None

    def submit(self, id: str, rows: Sequence[Mapping[str, Any]]) -> None:
        """Queues a protected request; no effect while it is waiting or running."""
        if self.states.get(id) not in ("waiting", "running"):
            self.states[id] = "waiting"
            lines = "".join(json.dumps({**row, "request_id": id}) + "\n" for row in rows)
            self._pool.submit(self._train, id, lines.encode())

    def stop(self) -> None:
        """Ends the training that runs and drops those that wait; `requests train` continues both."""
        with self._lock:
            self._stopped = True
            if self._process is not None:
                self._process.terminate()
        self._pool.shutdown(cancel_futures=True)

    def _train(self, id: str, lines: bytes) -> None:
        """Trains one request, and notes whether that failed; errors of the process go to standard error."""
        try:
            with tempfile.TemporaryDirectory() as folder:
                config = Path(folder) / "config.yaml"
                config.write_text(yaml.safe_dump(self.settings), encoding="utf-8")
                words = [
                    "requests",
                    "train",
                    "/dev/stdin",
                    "--store",
                    f"{self.store}",
                    "--config",
                    f"{config}",
                ]
                with self._lock:
                    if self._stopped:
                        return
                    self.states[id] = "running"
                    self._process = process = start(words)
                process.communicate(lines)
            ended = f"with status {process.returncode}" if process.returncode else ""
        except OSError as error:  # a full disk, no memory for a process
            ended = f"before it began: {error.strerror or error}"
        if not ended:
            del self.states[id]
        elif not self._stopped:
            self.states[id] = "failed"
            logger.error("training '%s' ended %s; it stays protected", id, ended)


def start(words: Sequence[str]) -> subprocess.Popen[bytes]:
    """Starts this program with a pipe as its standard input."""
    process = subprocess.Popen(  # noqa: S603 - this program
        [sys.executable, "-m", "o3_lightning", *words],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    os.setpriority(os.PRIO_PROCESS, process.pid, NICENESS)
    return process
