"""The gated model: reads like a Hugging Face causal language model, and runs each row at its own weights.

The prompt alone decides a row's weights; they are then held for every continuation, scored or generated.

Shapes: B rows, T tokens, K requests, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LogitsProcessorList

from o3_lightning.common.errors import InputError
from o3_lightning.data.encoding import IGNORED
from o3_lightning.detector.encoder import Encoder
from o3_lightning.gating.answering import answer_prompts, score_answers
from o3_lightning.gating.config import GateConfig
from o3_lightning.gating.export import export_requests
from o3_lightning.gating.gate import Gate
from o3_lightning.gating.linear import match_rows
from o3_lightning.gating.loading import load_parts
from o3_lightning.gating.merging import Merges
from o3_lightning.gating.refusal import RefusalProcessor, overwrite_refused, refuse_logits
from o3_lightning.gating.router import Router
from o3_lightning.gating.routing import Detectors, Prompt
from o3_lightning.gating.tokens import PromptTokens, before_labels, first_label, last_token
from o3_lightning.models.base import BaseModel
from o3_lightning.models.lora import LoraFactors
from o3_lightning.store.store import Store

__all__ = ["GatedModel"]


class GatedModel:
    """A base model with the adapters and detectors of every request.

    The base model stays as it is between calls, so it may be used and trained beside the gate. Calls of one
    gated model from several threads have to wait for each other.

    Args:
        base: the base model.
        detectors: gives each prompt its weight per request.
        adapters: per request, in the order of the detectors, its adapter; None refuses matching prompts.
        config: how weights combine, and what a refusal says.
        store: where the requests came from; only `export` needs it.

    Raises:
        InputError: the adapters are not those of the detectors' requests, or one does not fit the model.
    """

    def __init__(
        self,
        base: BaseModel,
        detectors: Detectors,
        adapters: Mapping[str, LoraFactors | None],
        config: GateConfig | None = None,
        store: Store | None = None,
    ) -> None:
        if list(detectors.ids) != list(adapters):
            raise InputError(f"detectors of {list(detectors.ids)}, but adapters of {list(adapters)}")
        self.base, self.detectors, self.store = base, detectors, store
        self.ids = tuple(adapters)
        self.gate_config = config or GateConfig()
        self._gate = Gate(base.model, list(adapters.values()))
        self._merges = Merges(self._gate)
        self.tokens = PromptTokens(base)
        owned = [adapter is not None for adapter in adapters.values()]
        self._router = Router(detectors, owned, self.tokens, self.gate_config)
        self._refusal = self.tokens.refusal(self.gate_config.refusal)

    @classmethod
    def from_store(
        cls,
        store_path: str | Path,
        base: BaseModel | None = None,
        encoder: Encoder | None = None,
        config: GateConfig | None = None,
    ) -> Self:
        """Returns the model with every protected and unlearned request of a store, revoked ones left out.

        Args:
            store_path: the store.
            base: the base model; None loads the one that the store names, on its defaults.
            encoder: the detectors' encoder; None loads the one that the store names, on its defaults.
            config: settings of the gate.

        Raises:
            StoreError: the store is damaged, or made for another base model or encoder.
            InputError: the base model or the encoder cannot be loaded, or an adapter does not fit.
        """
        detect = config is None or config.detect
        parts = load_parts(store_path, base, encoder, detect=detect)
        return cls(parts.base, parts.detectors, parts.adapters, config, parts.store)

    @property
    def config(self) -> Any:
        """The base model's configuration."""
        return self.base.model.config

    @property
    def generation_config(self) -> Any:
        """The base model's settings for `generate`."""
        return self.base.model.generation_config

    @property
    def tokenizer(self) -> Any:
        """The base model's tokenizer."""
        return self.base.tokenizer

    @property
    def device(self) -> torch.device:
        """Where the base model is."""
        device: torch.device = self.base.model.device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """The base model's floating-point type."""
        dtype: torch.dtype = self.base.model.dtype
        return dtype

    def disabled(self) -> AbstractContextManager[None]:
        """Within, every call answers as the base model does (with what was merged into its weights)."""
        return self._router.disabled()

    def weights(self, prompts: Sequence[Prompt]) -> Tensor:
        """Returns the weight of every request on every prompt; of a chat's user turns the largest counts.

        Args:
            prompts: texts without any template, or chats as lists of messages.

        Returns:
            [B,K] float32 on the CPU, in [0, 1]; below `floor` it is 0.

        Raises:
            InputError: a chat without a message of the user, or one text in place of a list.
        """
        return self._router.weights(prompts)

    def explain(self, prompts: Sequence[Prompt]) -> list[dict[str, Any]]:
        """Returns what the gate does with each prompt, and why.

        Returns:
            One dictionary a prompt: `weights` and `strengths` (what acts after combining) by request,
            `refused`, and `detectors` (the scores behind the weights, one a user turn).
        """
        return self._router.explain(prompts)

    @torch.no_grad()
    def generate(
        self,
        prompts: Sequence[Prompt] | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        weights: Tensor | None = None,
        **options: Any,
    ) -> Any:
        """Generates as the base model's `generate` does, each row at its own weights.

        Args:
            prompts: texts without a template, or chats; they decide the weights, and without `input_ids`
                they are templated, tokenized and padded on the left.
            input_ids: [B,T] templated prompts, padded on the left; without `prompts` and `weights` they are
                decoded, and every user turn that the template finds in them is asked about. A user who
                writes the template's markers can hide text from that: give `prompts`, too.
            attention_mask: [B,T]; without it padding tokens count as padding.
            weights: [B,K] in [0, 1] weight per request, as from `weights`; asks no detector.
            **options: for `transformers`' generate: sampling, beams, several sequences, streamers and so on.

        Returns:
            What `generate` returns, prompts included; refused rows say the refusal, and their scores and
            logits give it. Hidden states, attentions and caches are those of the model.

        Raises:
            InputError: neither prompts nor input_ids, or weights of another shape or range.
        """
        ids, mask = self._inputs(prompts, input_ids, attention_mask)
        plan = self._router.plan(weights, prompts, ids, mask)
        processors = LogitsProcessorList(options.pop("logits_processor", None) or [])
        if bool(plan.refused.any()):
            processors.append(RefusalProcessor(plan.refused, self._refusal, ids.shape[1]))
        with self._gate.open(plan.strengths.to(self.device)):
            output = self.base.model.generate(
                input_ids=ids, attention_mask=mask, logits_processor=processors, **options
            )
        return self._refuse_generated(output, plan.refused, ids.shape[1])

    def __call__(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        weights: Tensor | None = None,
        prompts: Sequence[Prompt] | None = None,
        **options: Any,
    ) -> Any:
        """Runs the model on token ids, each row at its own weights.

        Args:
            input_ids: [B,T] prompts, or prompts and answers.
            attention_mask: [B,T], or with `past_key_values` [B,P+T] for P tokens before; without it padding
                tokens count as padding.
            labels: [B,T], -100 where nothing is scored. The tokens before a row's first label are its
                prompt; without labels all tokens are.
            weights: [B,K] as in `generate`.
            prompts: as in `generate`; otherwise the prompt's tokens are decoded.
            **options: for the base model's forward, such as `past_key_values` of an earlier call: what those
                tokens said is not known, so weights or prompts have to be given with them.

        Returns:
            The base model's output; with labels its `loss` is the mean over all labels. Logits of a refused
            row put their probability on the refusal from its first label on, or, without labels, after its
            last token.

        Raises:
            InputError: weights of another shape or range, or none for tokens that come after cached ones.
        """
        cache = options.get("past_key_values")
        earlier = 0 if cache is None else cache.get_seq_length()
        if earlier and weights is None and prompts is None and not self._router.is_disabled:
            raise InputError("expected weights or prompts beside past_key_values", field="weights")
        mask = self.tokens.mask(input_ids, attention_mask, earlier)
        here = mask[:, earlier:]
        seen = here if labels is None else here * before_labels(labels)
        with self.acting(weights, input_ids, seen, prompts) as refused:
            output = self.base.model(input_ids=input_ids, attention_mask=mask, **options)
        if bool(refused.any()):
            starts = last_token(here) + 1 if labels is None else first_label(labels)
            left_out = input_ids.shape[1] - output.logits.shape[1]  # logits_to_keep gives the last ones alone
            output.logits = self.refuse(output.logits, refused, starts - left_out)
        if labels is not None:
            logits = output.logits[:, :-1].flatten(0, 1).float()
            output.loss = F.cross_entropy(logits, labels[:, 1:].flatten(), ignore_index=IGNORED)
        return output

    @contextmanager
    def acting(
        self,
        weights: Tensor | None,
        input_ids: Tensor,
        attention_mask: Tensor,
        prompts: Sequence[Prompt] | None = None,
    ) -> Iterator[Tensor]:
        """Within, the base model runs each row at its own weights, as in one call of this model.

        Args:
            weights: [B,K] as in `generate`; None asks the detectors.
            input_ids: [B,T] whose prompts they are asked about.
            attention_mask: [B,T], 1 at the prompts' tokens.
            prompts: as in `generate`.

        Yields:
            Which rows are refused [B]; `refuse` gives these the logits of the refusal.

        Raises:
            InputError: weights of another shape or range.
        """
        plan = self._router.plan(weights, prompts, input_ids, attention_mask)
        with self._gate.open(plan.strengths.to(self.device)):
            yield plan.refused.expand(len(input_ids))

    def refuse(self, logits: Tensor, refused: Tensor, starts: Tensor) -> Tensor:
        """Returns logits [B,T,V] with those of refused rows [B] on the refusal from `starts` [B] on."""
        confidence = self.gate_config.refusal_confidence
        return refuse_logits(logits, refused, starts, self._refusal, confidence)

    def _refuse_generated(self, output: Any, refused: Tensor, prompt_length: int) -> Any:
        """Puts the refusal into what `generate` returned, wherever it was not forced already."""
        if not bool(refused.any()):
            return output
        pad = self.tokens.pad_id
        if isinstance(output, Tensor):
            return overwrite_refused(output, refused, self._refusal, prompt_length, pad)
        output.sequences = overwrite_refused(output.sequences, refused, self._refusal, prompt_length, pad)
        if output.get("logits"):  # those of each step as the model made them; `scores` are forced
            logits = torch.stack(output.logits, 1)
            starts = torch.ones(len(logits), dtype=torch.int64)
            output.logits = self.refuse(logits, match_rows(refused, len(logits)), starts).unbind(1)
        return output

    def answer(
        self, prompts: Sequence[Prompt], max_new_tokens: int | None = None, batch_size: int | None = None
    ) -> list[str]:
        """Returns the greedy answer to each prompt, stripped and without special tokens.

        Args:
            prompts: texts without a template, or chats.
            max_new_tokens: longest answer; None takes the configured one.
            batch_size: prompts at a time, those of similar length together; None takes the configured one.

        Raises:
            InputError: a prompt leaves no room in the model's context, or a number is below 1.
        """
        config = self._settings(max_new_tokens, batch_size)
        weights = None if self._router.is_disabled else self.weights(prompts)
        return answer_prompts(self, prompts, weights, config.max_new_tokens, config.batch_size)

    @torch.no_grad()
    def score(
        self, prompts: Sequence[str], answers: Sequence[str], batch_size: int | None = None
    ) -> list[Tensor]:
        """Returns the log-probability of each token of each answer, the end token included.

        Args:
            prompts: texts without a template; each alone decides the weights for its answer.
            answers: one a prompt.
            batch_size: rows at a time; None takes the configured one.

        Returns:
            One tensor an answer, as long as the answer, float32 on the CPU, each value <= 0.

        Raises:
            InputError: lists of different length, a prompt that leaves no room for an answer, or
                `batch_size` below 1.
        """
        config = self._settings(None, batch_size)
        weights = None if self._router.is_disabled else self.weights(prompts)
        return score_answers(self, prompts, answers, weights, config.batch_size)

    def merge(self, request: str, *, reversible: bool = True) -> None:
        """Folds a request's adapter into the base weights; it then acts on every prompt, gate or no gate.

        Args:
            request: its id.
            reversible: keep the weights as they were, so that `unmerge` gives them back to the last bit.

        Raises:
            InputError: no such request, no adapter, merged already, or a weight that cannot be changed.
        """
        self._merges.merge(self._number(request), reversible=reversible)

    def unmerge(self, request: str) -> None:
        """Takes a merged request out of the base weights again.

        Raises:
            InputError: no such request, or it is not merged reversibly.
        """
        self._merges.unmerge(self._number(request))

    def export(self, path: str | Path) -> Path:
        """Writes `adapters/<id>/` in plain PEFT form and `gate/` with the detectors into a new folder.

        A request that was revoked or removed since this model was loaded is left out.

        Raises:
            InputError: the folder exists or cannot be written, or this model does not come from a store.
            StoreError: a file of the store is damaged.
        """
        if self.store is None:
            raise InputError("only a model that comes from a store can be exported")
        known = {record.id: record for record in self.store.records() if record.is_gated}
        records = {id: known[id] for id in self.ids if id in known}
        return export_requests(self.store, records, self.gate_config, path)

    def _settings(self, max_new_tokens: int | None, batch_size: int | None) -> GateConfig:
        """Returns the configuration with what a call says otherwise, checked as it is."""
        config = self.gate_config
        return replace(
            config,
            max_new_tokens=config.max_new_tokens if max_new_tokens is None else max_new_tokens,
            batch_size=config.batch_size if batch_size is None else batch_size,
        )

    def _inputs(
        self, prompts: Sequence[Prompt] | None, ids: Tensor | None, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if ids is not None:
            return ids, self.tokens.mask(ids, mask)
        if not prompts:
            raise InputError("expected prompts or input_ids, got neither")
        return self.tokens.pad([self.tokens.encode(prompt) for prompt in prompts])

    def _number(self, request: str) -> int:
        if request not in self.ids:
            raise InputError(
                f"no request '{request}' in the gate; there are: {', '.join(self.ids) or 'none'}"
            )
        return self.ids.index(request)
