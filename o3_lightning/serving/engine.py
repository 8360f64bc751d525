"""Runs rows that arrive together in one batch, each at its own weights; fails closed.

One thread owns the model: it asks the gate, generates, and follows the store. Refusals and gate-only rows
need no generation: they are answered between two decoding steps of the running batch, and by the store as it
is at that time.

Shapes: B rows, K requests.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, nullcontext
from copy import copy
from threading import Condition, Thread
from time import monotonic
from typing import Any

from starlette.exceptions import HTTPException
from transformers import StoppingCriteriaList

from o3_lightning.common.errors import InputError
from o3_lightning.data.prompts import read_prompt
from o3_lightning.gating.model import GatedModel
from o3_lightning.gating.plan import Plan
from o3_lightning.gating.routing import describe
from o3_lightning.gating.watching import StoreWatcher
from o3_lightning.serving.config import ServeConfig
from o3_lightning.serving.judging import judge_prompts
from o3_lightning.serving.metrics import Metrics
from o3_lightning.serving.rows import Failed, Row, RowSampler, RowStop, RowStreamer

logger = logging.getLogger(__name__)
WAIT_SHARE = 0.05  # of the last batch's time, for which a batch waits for the clients of that one
LOOK_SECONDS = 0.5  # between two looks at the queue while a batch is generated
MOST_PAUSE_SECONDS = 10.0  # generation waits so long for a detector's fit, then shares the processor with it


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
        self._batch_seconds, self._last_rows, self._followed = 1.0, 0, monotonic()
        self._looked = self._paused_until = 0.0
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
            HTTPException: they do not fit into the queue, or the engine is stopping.
        """
        with self._changed:
            if not self.is_running or len(self._waiting) + len(rows) > self.config.max_waiting_rows:
                batches = 1 + len(self._waiting) // self.config.max_batch_rows
                seconds = max(1, round(batches * self._batch_seconds))
                raise HTTPException(429, "too many calls are waiting", {"Retry-After": f"{seconds}"})
            self._waiting.extend(rows)
            self.metrics.waiting.set(len(self._waiting))
            self._changed.notify()

    def call(self, work: Callable[[], Any]) -> Future[Any]:
        """Runs a function in the engine's thread, between two batches.

        Raises:
            HTTPException: the engine is stopping.
        """
        future: Future[Any] = Future()
        with self._changed:
            if not self.is_running:
                raise HTTPException(503, "the server is stopping")
            self._calls.append((work, future))
            self._changed.notify()
        return future

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Within, generation waits, up to `MOST_PAUSE_SECONDS`; rows that need none are answered."""
        self._paused_until = monotonic() + MOST_PAUSE_SECONDS
        try:
            yield
        finally:
            with self._changed:
                self._paused_until = 0.0
                self._changed.notify()

    def _work(self) -> None:
        while (rows := self._take()) is not None:
            began = monotonic()
            try:
                self._run(rows)
            except Exception as error:  # one batch must not end the server
                fail(rows, error)
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
        self._wait_while_paused()
        with self._changed:
            if self._waiting and (self._last_rows > 1 or len(self._waiting) > 1):
                self._changed.wait_for(
                    lambda: len(self._waiting) >= self.config.max_batch_rows,
                    min(self.config.batch_wait_seconds, WAIT_SHARE * self._batch_seconds),
                )
            count = min(len(self._waiting), self.config.max_batch_rows)
            rows = [self._waiting.popleft() for _ in range(count)]
            self.metrics.waiting.set(len(self._waiting))
        return rows

    def _keep_up(self) -> None:
        """Follows the store every `refresh_seconds`, and runs the functions given to `call`."""
        if monotonic() - self._followed > self.config.refresh_seconds:
            self.watcher.look()  # `/readyz` shows a problem
            self._followed = monotonic()
        while self._calls:
            work, future = self._calls.popleft()
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(work())
                except Exception as error:
                    future.set_exception(error)

    def _between_steps(self) -> None:
        """Follows the store and answers waiting rows that need no generation, while a batch is generated."""
        now = monotonic()
        if self._calls or now > self._looked + LOOK_SECONDS or now < self._paused_until:
            self._keep_up()
            self._answer_waiting()
            self._wait_while_paused()
            self._looked = monotonic()

    def _wait_while_paused(self) -> None:
        while (left := self._paused_until - monotonic()) > 0:
            with self._changed:
                self._changed.wait(min(left, LOOK_SECONDS))
            self._keep_up()
            self._answer_waiting()

    def _answer_waiting(self) -> None:
        """Answers the waiting rows that need no generation, and takes them out of the queue."""
        head = self.model.store_head
        with self._changed:
            fresh = [row for row in self._waiting if not (row.ungated or row.is_judged_at(head))]
        fresh = fresh[: self.config.max_batch_rows]
        answered = set(fresh).difference(self._admit(fresh))
        with self._changed:
            self._waiting = deque(row for row in self._waiting if row not in answered)
            self.metrics.waiting.set(len(self._waiting))

    def _run(self, rows: list[Row]) -> None:
        """Answers some rows, in as many batches as the model's context asks for."""
        while rows := self._admit(rows):
            group = self._fitting([row for row in rows if row.ungated == rows[0].ungated])
            self._generate(group)
            rows = [row for row in rows if row not in group]

    def _admit(self, rows: Sequence[Row]) -> list[Row]:
        """Reads and judges rows, ends those that need no generation, and returns the others."""
        try:
            rows = [row for row in rows if self._read(row)]
            head = self.model.store_head
            self._judge([row for row in rows if not (row.ungated or row.is_judged_at(head))])
        except Exception as error:  # one row must not end the batch that is generated meanwhile
            fail(rows, error)
            return []
        for row in rows:
            if row.judged and row.is_refused:
                row.emit(row.judged)
                RowStreamer([row], self.model.base, None, self.model.refusal_tokens).refuse()
            elif row.judged and not row.max_tokens:
                row.emit(row.judged)
        return [row for row in rows if row.max_tokens and not row.is_refused]

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
        except Exception as error:  # one row must not end the others
            fail([row], error)
            return False
        row.max_tokens = min(row.max_tokens, room)
        return True

    def _judge(self, rows: Sequence[Row]) -> None:
        """Asks the gate."""
        if not rows:
            return
        plan, judged = judge_prompts(self.model, [row.prompt for row in rows])
        self.metrics.gate_seconds.observe(judged[0].gate_seconds)
        for number, row in enumerate(rows):
            row.plan, row.judged = plan.rows([number]), judged[number]

    def _fitting(self, rows: Sequence[Row]) -> list[Row]:
        """Returns as many of the first rows as the context holds side by side; at least one."""
        longest = answer = 0
        for count, row in enumerate(rows):
            longest, answer = max(longest, len(row.ids)), max(answer, row.max_tokens)
            if count and longest + answer > self.model.base.context_tokens:
                return list(rows[:count])
        return list(rows)

    def _generate(self, rows: Sequence[Row]) -> None:
        """Generates the answers of one batch, each row by its plan; without plans by the base model."""
        self.metrics.batch_rows.observe(len(rows))
        model = copy(self.model)  # keeps its requests while the engine's model follows the store
        for row in rows:
            if row.judged:
                row.emit(row.judged)
        plans = [row.plan for row in rows if row.plan is not None]
        plan = Plan.stack(plans) if plans else None
        ids, mask = model.tokens.pad([row.ids for row in rows])
        tells_others = any(row.top_logprobs for row in rows)
        watched = model.watched(plan, ids, mask) if plan and tells_others else ()
        sampler = RowSampler(rows, ids.shape[1], watched)
        ends = RowStop(rows, model.base, ids.shape[1], self._between_steps)
        with nullcontext() if plans else model.disabled():
            model.generate(
                input_ids=ids,
                attention_mask=mask,
                weights=plan,
                max_new_tokens=max(row.max_tokens for row in rows),
                do_sample=False,
                num_beams=1,
                pad_token_id=model.tokens.pad_id,
                streamer=RowStreamer(rows, model.base, sampler, model.refusal_tokens),
                logits_processor=[sampler],
                stopping_criteria=StoppingCriteriaList([ends]),
            )


def fail(rows: Sequence[Row], error: Exception) -> None:
    """Ends rows in which the model or the gate failed, and logs the error."""
    logger.error("%d rows failed: %s", len(rows), describe(error))
    for row in rows:
        row.emit(Failed(500, "the model failed"))
