"""The gated model: used like a Hugging Face causal language model, each row runs at its own weights.

The prompt alone decides a row's weights; they are then held for every continuation, scored or generated.

Shapes: B rows, K requests.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from o3_lightning.common.errors import InputError
from o3_lightning.data.prompts import Prompt
from o3_lightning.detector.encoder import Encoder
from o3_lightning.gating.answering import answer_prompts, score_answers
from o3_lightning.gating.calls import GatedCalls
from o3_lightning.gating.config import GateConfig
from o3_lightning.gating.export import export_requests
from o3_lightning.gating.loading import StoreLoader, open_store
from o3_lightning.gating.merging import Merges
from o3_lightning.gating.plan import Plan
from o3_lightning.models.base import BaseModel
from o3_lightning.store.store import Store


class GatedModel(GatedCalls):
    """A base model with the adapters and detectors of every request.

    The base model is unchanged between calls, so it may be used and trained beside the gate. Calls from
    several threads run one after the other; a call within another one (see `acting`) runs at its own weights.

    Args:
        base: the base model.
        detectors: give each prompt its weight per request.
        adapters: per request, in the order of the detectors, its adapter; None refuses matching prompts.
        config: how weights combine, and the text of a refusal.
        answers: hashed answers of each request, for `gate.check_answers`; empty for none.

    Raises:
        InputError: the adapters are not those of the detectors' requests, or one does not fit the model.

    Attributes:
        store: the store that the requests were read from, None without one; only `export` needs it.
        store_head: digest of the last journal line of the store as this model has it; empty without a store.
    """

    store: Store | None = None
    store_head = ""
    _loader: StoreLoader | None = None

    def _assemble(self, *parts: Any) -> None:
        super()._assemble(*parts)
        self._merges = Merges(self._gate)

    @classmethod
    def from_store(
        cls,
        store_path: str | Path,
        base: BaseModel | None = None,
        encoder: Encoder | None = None,
        config: GateConfig | None = None,
        only: Collection[str] | None = None,
    ) -> Self:
        """Returns the model with every protected and unlearned request of a store, revoked ones left out.

        Args:
            store_path: the store.
            base: the base model; None loads the one that the store names, with the settings that it records.
            encoder: the detectors' encoder; None loads the one that the store names, as they have it.
            config: settings of the gate.
            only: ids of the requests to take; None takes all.

        Raises:
            StoreError: the store is damaged, or made for another base model or encoder.
            InputError: the base model or the encoder cannot be loaded, the base model was opened with other
                settings than the store records, or an adapter does not fit.
        """
        detect = config is None or config.detect
        store, base, encoder = open_store(store_path, base, encoder)
        loader = StoreLoader(store, encoder, detect=detect, only=only)
        parts = loader.load()
        model = cls(base, parts.detectors, parts.adapters, config, parts.answers)
        model.store, model._loader, model.store_head = store, loader, parts.head
        return model

    def refresh(self) -> bool:
        """Follows the store: requests added, trained, revoked, restored or removed act from the next call on.

        Only what is new is read; the base model stays loaded. Calls that are under way end as they began.

        Returns:
            Whether the store had changed.

        Raises:
            InputError: this model does not come from a store, or a request is merged into the base weights.
            StoreError: a file of the store is damaged; the model stays as it was.
        """
        loader = self._loader
        if loader is None:
            raise InputError("expected a model that was loaded from a store")
        changed = False
        while loader.store.head() != self.store_head:
            if self._gate.merged:
                raise InputError("the store has changed; unmerge every request to let the model follow it")
            parts = loader.load()
            with self._gate.lock:
                if loader.store.head() == parts.head:  # else another thread may have read more
                    self._assemble(parts.detectors, parts.adapters, parts.answers)
                    self.store_head, changed = parts.head, True
        return changed

    def weights(self, prompts: Sequence[Prompt]) -> Tensor:
        """Returns the weight of every request on every prompt.

        A chat is judged by its question: the last user turn and what follows it, completed by the turns that
        it refers back to or that one question is spread over. Other turns only make it suspect (`explain`).

        Args:
            prompts: texts without any template, or chats (see `data.prompts.read_prompt`).

        Returns:
            [B,K] float32 on the CPU, in [0, 1]; 0 below `gate.floor`, 1 where a detector failed.

        Raises:
            InputError: one text in place of a list, or a prompt that is neither a text nor a chat.
        """
        return self._router.plan_prompts(prompts).weights

    def plan(self, prompts: Sequence[Prompt]) -> Plan:
        """Returns what happens to each prompt: weights, strengths of the adapters, refusals.

        Raises:
            InputError: as `weights`.
        """
        return self._router.plan_prompts(prompts)

    def explain(self, prompts: Sequence[Prompt]) -> list[dict[str, Any]]:
        """Returns what the gate does with each prompt, and why.

        Returns:
            One dictionary a prompt: by request `weights`, `suspect` (weights of the other turns of a chat)
            and `strengths` (after combining); `refused`; `failed` (refused because a detector failed);
            `detectors`, the scores behind the weights, one entry a text of the question; and `unchecked`, the
            requests that `gate.check_answers` cannot check because the store holds none of their answers.

        Raises:
            InputError: as `weights`.
        """
        is_on = self.gate_config.check_answers != "off"
        unchecked = [
            id for place, id in enumerate(self.ids) if is_on and place not in self._answer_gate.columns
        ]
        return [{**row, "unchecked": unchecked} for row in self._router.explain(prompts)]

    def answer(
        self, prompts: Sequence[Prompt], max_new_tokens: int | None = None, batch_size: int | None = None
    ) -> list[str]:
        """Returns the greedy answer to each prompt, stripped and without special tokens.

        Args:
            prompts: texts without a template, or chats.
            max_new_tokens: longest answer; None takes the configured one.
            batch_size: prompts in a batch, batched by length; None takes the configured one.

        Raises:
            InputError: a prompt leaves no room in the model's context, or a number is below 1.
        """
        config = self._settings(max_new_tokens, batch_size)
        with self._gate.lock:
            plan = None if self._router.is_disabled else self.plan(prompts)
            return answer_prompts(self, prompts, plan, config.max_new_tokens, config.batch_size)

    @torch.no_grad()
    def score(
        self, prompts: Sequence[str], answers: Sequence[str], batch_size: int | None = None
    ) -> list[Tensor]:
        """Returns the log-probability of each token of each answer, the end token included.

        Args:
            prompts: texts without a template; each decides the weights for its answer.
            answers: one a prompt.
            batch_size: rows in a batch; None takes the configured one.

        Returns:
            One tensor an answer, as long as the answer, float32 on the CPU, each value <= 0.

        Raises:
            InputError: lists of different length, a prompt that leaves no room for an answer, or
                `batch_size` below 1.
        """
        config = self._settings(None, batch_size)
        with self._gate.lock:
            plan = None if self._router.is_disabled else self.plan(prompts)
            return score_answers(self, prompts, answers, plan, config.batch_size)

    def merge(self, request: str, *, reversible: bool = True) -> None:
        """Adds a request's adapter to the base weights; it then acts on every prompt, also without the gate.

        Args:
            request: its id.
            reversible: keep a copy of the original weights, so that `unmerge` restores them bit for bit.

        Raises:
            InputError: no such request, no adapter, merged already, or a weight that cannot be changed.
        """
        with self._gate.lock:
            self._merges.merge(self._number(request), reversible=reversible)

    def unmerge(self, request: str) -> None:
        """Takes a merged request out of the base weights again.

        Raises:
            InputError: no such request, or it is not merged reversibly.
        """
        with self._gate.lock:
            self._merges.unmerge(self._number(request))

    def export(self, path: str | Path) -> Path:
        """Writes `adapters/<id>/` in plain PEFT form and `gate/` with the detectors into a new folder.

        A request that was revoked or removed since this model was loaded is left out.

        Raises:
            InputError: the folder exists or cannot be written, or this model does not come from a store.
            StoreError: a file of the store is damaged.
        """
        if self.store is None:
            raise InputError("expected a model that was loaded from a store")
        known = {record.id: record for record in self.store.records() if record.is_gated}
        records = {id: known[id] for id in self.ids if id in known}
        return export_requests(self.store, records, self.gate_config, path)

    def _settings(self, max_new_tokens: int | None, batch_size: int | None) -> GateConfig:
        """Returns the configuration with the values that a call overrides, checked."""
        config = self.gate_config
        return replace(
            config,
            max_new_tokens=config.max_new_tokens if max_new_tokens is None else max_new_tokens,
            batch_size=config.batch_size if batch_size is None else batch_size,
        )

    def _number(self, request: str) -> int:
        if request not in self.ids:
            raise InputError(
                f"no request '{request}' in the gate; there are: {', '.join(self.ids) or 'none'}"
            )
        return self.ids.index(request)
