"""Runs rows that arrive together in one batch, each at its own weights; fails closed.

One thread owns the model: it asks the gate, generates, and follows the store between two batches.

Shapes: B rows, K requests.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import nullcontext
from threading import Condition, Thread
from time import monotonic
from typing import Any

import torch
from transformers import StoppingCriteriaList

from o3_lightning.common.errors import InputError
from o3_lightning.data.prompts import read_prompt
from o3_lightning.gating.model import GatedModel
from o3_lightning.gating.plan import Plan
from o3_lightning.gating.routing import describe
from o3_lightning.gating.watching import StoreWatcher
from o3_lightning.serving.config import ServeConfig
from o3_lightning.serving.metrics import Metrics
from o3_lightning.serving.rows import (
    Failed,
    Judged,
    Row,
    RowSampler,
    RowStop,
    RowStreamer,
)

__all__ = ["BusyError", "Engine"]

logger = logging.getLogger(__name__)


class BusyError(Exception):
    """The queue is full.

    Args:
        seconds: after which it is worth to try again.
    """

    def __init__(self, seconds: int) -> None:
        super().__init__("too many calls are waiting")
        self.seconds = seconds


class Engine:
    """Batches rows and generates their answers in a thread of its own.

    Args:
        model: loaded from a store.
        config: sizes of batch and queue.
        metrics: counts what happens.
    """

    def __init__(self, model: GatedModel, config: ServeConfig, metrics: Metrics) -> None:
        self.model, self.config, self.metrics = model, config, metrics
        self.watcher = StoreWatcher(model, config.refresh_seconds)
        self._waiting: deque[Row] = deque()
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._changed = Condition()
        self._is_stopping = False
        self._batch_seconds, self._last_rows, self._looked = 1.0, 0, monotonic()
        self._thread = Thread(target=self._work, name="engine", daemon=True)

    @property
    def is_running(self) -> bool:
        """Whether rows are taken."""
        return self._thread.is_alive() and not self._is_stopping

    def start(self) -> None:
        """Starts the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Finishes the rows that were taken, and ends the thread."""
        with self._changed:
            self._is_stopping = True
            self._changed.notify()
        self._thread.join()

    def submit(self, rows: Sequence[Row]) -> None:
        """Queues rows, all or none.

        Raises:
            BusyError: they do not fit into the queue, or the engine is stopping.
        """
        with self._changed:
            if not self.is_running or len(self._waiting) + len(rows) > self.config.max_waiting_rows:
                batches = 1 + len(self._waiting) // self.config.max_batch_rows
                raise BusyError(max(1, round(batches * self._batch_seconds)))
            self._waiting.extend(rows)
            self.metrics.waiting.set(len(self._waiting))
            self._changed.notify()

    def call(self, work: Callable[[], Any]) -> Future[Any]:
        """Runs a function in the engine's thread, between two batches.

        Raises:
            BusyError: the engine is stopping.
        """
        future: Future[Any] = Future()
        with self._changed:
            if not self.is_running:
                raise BusyError(1)
            self._calls.append((work, future))
            self._changed.notify()
        return future

    def _work(self) -> None:
        while (rows := self._take()) is not None:
            began = monotonic()
            try:
                self._run(rows)
            except Exception as error:  # one batch must not end the server
                logger.error("a batch of %d rows failed: %s", len(rows), describe(error))
                for row in rows:
                    row.emit(Failed(500, "the model failed"))
            if rows:
                self._batch_seconds, self._last_rows = monotonic() - began, len(rows)

    def _take(self) -> list[Row] | None:
        """Returns the rows of the next batch, maybe none; None when the engine has stopped."""
        with self._changed:
            if not (self._waiting or self._calls or self._is_stopping):
                self._changed.wait(self.config.refresh_seconds)
            if self._is_stopping and not (self._waiting or self._calls):
                return None
        self._keep_up()
        with self._changed:
            if self._waiting and (self._last_rows > 1 or len(self._waiting) > 1):
                self._changed.wait_for(
                    lambda: len(self._waiting) >= self.config.max_batch_rows, self.config.batch_wait_seconds
                )
            count = min(len(self._waiting), self.config.max_batch_rows)
            rows = [self._waiting.popleft() for _ in range(count)]
            self.metrics.waiting.set(len(self._waiting))
        return rows

    def _keep_up(self) -> None:
        """Follows the store every `refresh_seconds`, and runs the functions given to `call`."""
        if monotonic() - self._looked > self.config.refresh_seconds:
            try:
                self.watcher.look()
            except Exception as error:  # the thread must go on; `/readyz` shows the problem
                self.watcher.problem = describe(error)
                logger.error("the model does not follow its store: %s", self.watcher.problem)
            self._looked = monotonic()
        while self._calls:
            work, future = self._calls.popleft()
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(work())
                except Exception as error:
                    future.set_exception(error)

    def _run(self, rows: list[Row]) -> None:
        """Judges and answers some rows, in as many batches as the model's context asks for."""
        rows = [row for row in rows if self._read(row)]
        for ungated in (False, True):
            chosen = [row for row in rows if row.ungated == ungated]
            plan = self._judge(chosen) if chosen and not ungated else None
            numbers = [number for number, row in enumerate(chosen) if row.max_tokens]
            while numbers:
                group = self._fitting([chosen[number] for number in numbers])
                part, numbers = numbers[: len(group)], numbers[len(group) :]
                self._generate(group, None if plan is None else plan.rows(part))

    def _read(self, row: Row) -> bool:
        """Tokenizes a prompt; false, after an error event, if it cannot be read or its time is over."""
        if row.cancelled:
            return False
        if monotonic() > row.deadline:
            row.emit(Failed(503, "the call waited too long"))
            return False
        try:
            read_prompt(row.prompt)
            if row.is_raw:
                row.ids = list(self.model.tokenizer(row.prompt)["input_ids"])
            elif row.max_tokens:
                row.ids = self.model.tokens.encode(row.prompt)
            room = self.model.base.context_tokens - len(row.ids)
            if row.max_tokens and (not row.ids or room < 1):
                raise InputError(f"the prompt has {len(row.ids)} tokens", field="prompts")
        except InputError as error:
            row.emit(Failed(400, str(error)))
            return False
        row.max_tokens = min(row.max_tokens, room)
        return True

    def _judge(self, rows: Sequence[Row]) -> Plan:
        """Asks the gate; where it fails, every row is refused."""
        began, ids = monotonic(), self.model.ids
        try:
            plan = self.model.plan([row.prompt for row in rows])
        except Exception as error:
            logger.error("the gate failed on %d rows: %s", len(rows), describe(error))
            zeros, yes = torch.zeros(len(rows), len(ids)), torch.ones(len(rows), dtype=torch.bool)
            plan = Plan(zeros, zeros, zeros, yes, yes)
        seconds = monotonic() - began
        self.metrics.gate_seconds.observe(seconds)
        acting = plan.strengths.gt(0).any(1).tolist()
        for number, row in enumerate(rows):
            refused = bool(plan.refused[number])
            row.refused = refused
            decision = "refuse" if refused else "adapter" if acting[number] else "base"
            weights, suspect = (
                dict(zip(ids, part[number].tolist(), strict=True)) for part in (plan.weights, plan.suspect)
            )
            failed = bool(plan.failed[number])
            row.emit(Judged(decision, weights, suspect, failed, seconds, self.model.store_head))
        return plan

    def _fitting(self, rows: Sequence[Row]) -> list[Row]:
        """Returns as many of the first rows as the context holds side by side; at least one."""
        longest = answer = 0
        for count, row in enumerate(rows):
            longest, answer = max(longest, len(row.ids)), max(answer, row.max_tokens)
            if count and longest + answer > self.model.base.context_tokens:
                return list(rows[:count])
        return list(rows)

    def _generate(self, rows: Sequence[Row], plan: Plan | None) -> None:
        """Generates the answers of one batch at the weights of a plan; None runs the base model alone."""
        self.metrics.batch_rows.observe(len(rows))
        model = self.model
        ids, mask = model.tokens.pad([row.ids for row in rows])
        sampler = RowSampler(rows, ids.shape[1])
        streamer = RowStreamer(rows, model.base, sampler, model.refusal_tokens)
        with model.disabled() if plan is None else nullcontext():
            model.generate(
                input_ids=ids,
                attention_mask=mask,
                weights=plan,
                max_new_tokens=max(row.max_tokens for row in rows),
                do_sample=False,
                num_beams=1,
                pad_token_id=model.tokens.pad_id,
                streamer=streamer,
                logits_processor=[sampler],
                stopping_criteria=StoppingCriteriaList([RowStop(rows, model.base, ids.shape[1])]),
            )
