"""From prompts, token ids or given weights to the plan of each row; fails closed.

A row on which a detector raises, exceeds its time or returns no weight in [0, 1] is refused.

Shapes: B rows, T tokens, K requests, N texts.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from threading import Thread, local
from typing import Any, Protocol

import torch
from torch import Tensor

from o3_lightning.common.errors import InputError
from o3_lightning.data.prompts import Prompt, Turn, read_prompts
from o3_lightning.gating.chats import read_turns, weigh_reading
from o3_lightning.gating.config import GateConfig
from o3_lightning.gating.plan import Plan, check_weights, plan_rows
from o3_lightning.gating.tokens import PromptTokens

logger = logging.getLogger(__name__)
ROUNDING = 1e-5  # by which a weight may lie outside [0, 1]


class Detectors(Protocol):
    """The detectors' interface to the gate; `detector.multi.MultiDetector` is one."""

    @property
    def ids(self) -> Sequence[str]:
        """The requests, in the order of the weights' columns."""

    def weights(self, prompts: Sequence[Any]) -> Tensor:
        """Returns [N,K] in [0, 1]."""

    def explain(self, prompts: Sequence[Any]) -> list[dict[str, Any]]:
        """Returns the scores behind the weights, one dictionary a text."""


@dataclass(frozen=True)
class EveryPrompt:
    """Replaces the detectors where there is no gate: every prompt has weight 1 for every request.

    Args:
        ids: the requests.
    """

    ids: Sequence[str]

    def weights(self, prompts: Sequence[Any]) -> Tensor:
        """Returns ones [N,K]."""
        return torch.ones(len(prompts), len(self.ids))

    def explain(self, prompts: Sequence[Any]) -> list[dict[str, Any]]:
        """Returns one empty dictionary a text."""
        return [{} for _ in prompts]


class Router:
    """Decides what happens to each row.

    Args:
        detectors: give each text its weight per request.
        has_adapter: of each request; a matching prompt of one without is refused.
        tokens: decodes prompts from token ids.
        config: how weights combine, and how long the detectors may take.
        lock: re-entrant; held while the detectors work, which are not made for several threads.
        thread: per thread, whether it runs the base model alone; None starts with none that does.
    """

    def __init__(
        self,
        detectors: Detectors,
        has_adapter: Sequence[bool],
        tokens: PromptTokens,
        config: GateConfig,
        lock: AbstractContextManager[Any],
        thread: local | None = None,
    ) -> None:
        self.detectors, self.tokens, self.config, self.lock = detectors, tokens, config, lock
        self._has_adapter = torch.tensor(has_adapter, dtype=torch.bool)
        self._thread = thread or local()

    @property
    def is_disabled(self) -> bool:
        """Whether this thread runs the base model."""
        return bool(getattr(self._thread, "disabled", False))

    @contextmanager
    def disabled(self) -> Iterator[None]:
        """Within, every row of this thread is the base model's."""
        before, self._thread.disabled = self.is_disabled, True
        try:
            yield
        finally:
            self._thread.disabled = before

    def plan_prompts(self, prompts: Sequence[Prompt]) -> Plan:
        """Returns what happens to each prompt.

        Raises:
            InputError: as `read_prompts`.
        """
        return self._plan_turns(read_prompts(prompts))

    def plan(
        self, weights: Tensor | Plan | None, prompts: Sequence[Prompt] | None, ids: Tensor, mask: Tensor
    ) -> Plan:
        """Returns what happens to each row of a call.

        Args:
            weights: [B,K] or a plan that the caller gives; None asks the detectors.
            prompts: the prompts to judge, one a row; None decodes the tokens.
            ids: [B,T] of the call.
            mask: [B,T], 1 at the prompts' tokens.

        Raises:
            InputError: weights of another shape or range, or not one prompt a row.
        """
        shape = (len(ids), len(self.detectors.ids))
        if self.is_disabled:
            return plan_rows(torch.zeros(shape), self._has_adapter, self.config)
        if weights is None:
            turns = self.tokens.turns(ids, mask) if prompts is None else read_prompts(prompts)
            if len(turns) != len(ids):
                raise InputError(
                    f"expected one for each of {len(ids)} rows, got {len(turns)}", field="prompts"
                )
            return self._plan_turns(turns)
        given = weights.weights if isinstance(weights, Plan) else weights
        check_weights(given)
        if tuple(given.shape) != shape:
            message = f"expected [{shape[0]},{shape[1]}], got {tuple(given.shape)}"
            raise InputError(message, field="weights")
        return weights if isinstance(weights, Plan) else plan_rows(given, self._has_adapter, self.config)

    def raise_weights(self, plan: Plan, fired: Tensor, *, refuse: bool) -> Plan:
        """Returns a plan with full weight, or a refusal, where an answer fired for a request [B,K]."""
        weights = torch.where(fired.to(plan.weights.device), 1.0, plan.weights)
        raised = plan_rows(weights, self._has_adapter, self.config, plan.suspect)
        refused = plan.refused | raised.refused | (fired.any(1).to(plan.refused.device) & refuse)
        strengths = torch.where(refused[:, None], 0.0, raised.strengths)
        return replace(raised, strengths=strengths, refused=refused, failed=plan.failed)

    def explain(self, prompts: Sequence[Prompt]) -> list[dict[str, Any]]:
        """Returns what happens to each prompt, and why; see `GatedModel.explain`."""
        rows, ids = read_prompts(prompts), self.detectors.ids
        plan = self._plan_turns(rows)
        return [
            {
                "weights": dict(zip(ids, plan.weights[row].tolist(), strict=True)),
                "suspect": dict(zip(ids, plan.suspect[row].tolist(), strict=True)),
                "strengths": dict(zip(ids, plan.strengths[row].tolist(), strict=True)),
                "refused": bool(plan.refused[row]),
                "failed": bool(plan.failed[row]),
                "detectors": self._details(list(read_turns(turns).question)),
            }
            for row, turns in enumerate(rows)
        ]

    def _plan_turns(self, rows: Sequence[Sequence[Turn]]) -> Plan:
        """Returns what happens to each prompt; refuses all that are not judged in time."""
        try:
            with self.lock:
                weights, suspect = self._in_time(rows)
        except Exception as error:  # whatever it is, an unjudged prompt must not reach the base model
            logger.error("the gate failed on %d prompts: %s", len(rows), describe(error))
            suspect = torch.zeros(len(rows), len(self.detectors.ids))
            weights = torch.full_like(suspect, torch.nan)
        floor = self.config.floor
        cut = [torch.where(part < floor, 0.0, part) for part in (weights, suspect)]  # NaN stays
        return plan_rows(cut[0], self._has_adapter, self.config, cut[1])

    def _in_time(self, rows: Sequence[Sequence[Turn]]) -> tuple[Tensor, Tensor]:
        """Returns what `_judge` does; with a time limit that works in a thread of its own."""
        if not self.config.timeout_seconds:
            return self._judge(rows)
        future: Future[tuple[Tensor, Tensor]] = Future()

        def work() -> None:
            try:
                future.set_result(self._judge(rows))
            except BaseException as error:
                future.set_exception(error)

        Thread(target=work, daemon=True).start()
        return future.result(self.config.timeout_seconds)

    def _judge(self, rows: Sequence[Sequence[Turn]]) -> tuple[Tensor, Tensor]:
        """Returns the weights and the suspicion [B,K]; every text of the prompts is judged once."""
        readings = [read_turns(turns) for turns in rows]
        texts = list(dict.fromkeys(text for reading in readings for text in reading.texts))
        found = dict(zip(texts, self._weights(texts), strict=True))
        evidence = [weigh_reading(reading, found.__getitem__) for reading in readings]
        none = torch.zeros(0, len(self.detectors.ids))
        weights = torch.stack([each.weights for each in evidence]) if evidence else none
        return weights, torch.stack([each.suspect for each in evidence]) if evidence else none

    def _weights(self, texts: Sequence[str]) -> Tensor:
        """Returns weights [N,K], NaN for each text on which the detectors fail."""
        count = len(self.detectors.ids)
        if not texts or not count:
            return torch.zeros(len(texts), count)
        try:
            found = self.detectors.weights(list(texts)).detach().to("cpu", torch.float32)
            if found.shape != (len(texts), count):
                raise ValueError("shape")
        except Exception as error:
            logger.error("the detectors failed on %d texts: %s", len(texts), describe(error))
            if len(texts) == 1:
                return torch.full((len(texts), count), torch.nan)
            half = len(texts) // 2
            return torch.cat([self._weights(texts[:half]), self._weights(texts[half:])])
        valid = (found >= -ROUNDING) & (found <= 1 + ROUNDING)
        if not bool(valid.all()):
            logger.error("the detectors gave no weight in [0, 1] on %d texts", int((~valid).any(1).sum()))
        return torch.where(valid, found.clamp(0, 1), torch.nan)

    def _details(self, texts: list[str]) -> list[dict[str, Any]]:
        """Returns the detectors' explanation of some texts; none where they fail."""
        if not self.detectors.ids:
            return []
        try:
            with self.lock:
                return self.detectors.explain(texts)
        except Exception as error:
            logger.error("the detectors failed to explain %d texts: %s", len(texts), describe(error))
            return [{} for _ in texts]


def describe(error: BaseException) -> str:
    """Returns type and place of an error; its message may quote the prompt."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    place = f" at {trace.tb_frame.f_code.co_name}:{trace.tb_lineno}" if trace is not None else ""
    return f"{type(error).__name__}{place}"
