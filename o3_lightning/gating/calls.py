"""Runs the base model with each row at its own weights: `forward`, `generate` and calls from outside.

Shapes: B rows, T tokens, K requests, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from itertools import takewhile
from threading import local
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import LogitsProcessorList

from o3_lightning.common.errors import InputError
from o3_lightning.data.encoding import IGNORED
from o3_lightning.data.prompts import Prompt
from o3_lightning.detector.answers import AnswerState
from o3_lightning.gating.answer_gate import AnswerGate, HeldStreamer
from o3_lightning.gating.chats import read_turns
from o3_lightning.gating.config import GateConfig
from o3_lightning.gating.gate import Gate
from o3_lightning.gating.linear import match_rows
from o3_lightning.gating.plan import Plan
from o3_lightning.gating.refusal import RefusalProcessor, overwrite_refused, refuse_logits
from o3_lightning.gating.routing import Detectors, Router
from o3_lightning.gating.tokens import PromptTokens, before_labels, first_label, last_token
from o3_lightning.models.base import BaseModel
from o3_lightning.models.lora import LoraFactors

WORD_TOKENS = 8  # the longest end of a word that is looked for
BROKEN = "\ufffd"  # decodes an incomplete character


class GatedCalls:
    """A base model behind the gate; see `GatedModel`, which adds stores, answers and scores."""

    def __init__(
        self,
        base: BaseModel,
        detectors: Detectors,
        adapters: Mapping[str, LoraFactors | None],
        config: GateConfig | None = None,
        answers: Sequence[AnswerState | None] = (),
    ) -> None:
        self.base, self.tokens = base, PromptTokens(base)
        self.config, self.tokenizer = base.model.config, base.tokenizer
        self.gate_config = config or GateConfig()
        self._refusal = self.tokens.refusal(self.gate_config.refusal)
        self._thread = local()  # shared with the router: which threads run the base model alone
        self._assemble(detectors, adapters, answers)

    def _assemble(
        self,
        detectors: Detectors,
        adapters: Mapping[str, LoraFactors | None],
        answers: Sequence[AnswerState | None],
    ) -> None:
        """Takes the requests of the gate, in place of those that it had."""
        if list(detectors.ids) != list(adapters):
            raise InputError(f"detectors of {list(detectors.ids)}, but adapters of {list(adapters)}")
        gate = Gate(self.base.model, list(adapters.values()))
        self.has_adapter = [adapter is not None for adapter in adapters.values()]
        self._router = Router(
            detectors, self.has_adapter, self.tokens, self.gate_config, gate.lock, self._thread
        )
        self._gate, self._answer_gate = gate, AnswerGate(answers)
        self.detectors, self.ids = detectors, tuple(adapters)

    @property
    def generation_config(self) -> Any:
        """The base model's default options of `generate`."""
        return self.base.model.generation_config

    @property
    def refusal_tokens(self) -> tuple[int, ...]:
        """The tokens that a refused row says, the end token included."""
        return tuple(self._refusal)

    @property
    def device(self) -> torch.device:
        """The base model's device."""
        return torch.device(self.base.model.device)

    @property
    def dtype(self) -> torch.dtype:
        """The base model's floating-point type."""
        dtype: torch.dtype = self.base.model.dtype
        return dtype

    def refusal_text(self, max_new_tokens: int) -> str:
        """Returns a refused answer, which ends early where fewer tokens are allowed than it has."""
        return self.base.read_answer(self._refusal[:max_new_tokens])

    def disabled(self) -> AbstractContextManager[None]:
        """Within, this thread's calls run the base model alone (with what was merged into its weights)."""
        return self._router.disabled()

    @torch.no_grad()
    def generate(
        self,
        prompts: Sequence[Prompt] | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        weights: Tensor | Plan | None = None,
        **options: Any,
    ) -> Any:
        """Generates as the base model's `generate` does, each row at its own weights.

        Args:
            prompts: texts without a template, or chats; they decide the weights, and without `input_ids`
                they are templated, tokenized and padded on the left.
            input_ids: [B,T] templated prompts, padded on the left; without `prompts` and `weights` they are
                decoded, and the turns that the template marks are judged as a chat. A user who writes the
                template's markers can pass text off as another role's: prefer `prompts`.
            attention_mask: [B,T]; without it padding tokens count as padding.
            weights: [B,K] in [0, 1] weight per request, as from `weights`, or a plan from `plan`; no detector
                is asked.
            **options: for `transformers`' generate: sampling, beams, several sequences, streamers and so on.

        Returns:
            What `generate` returns, prompts included; refused rows hold the refusal, and so do their scores
            and logits. With `gate.check_answers` a row that tells a forgotten value is generated again at
            full weight, then refused; streams of such prompts wait for the whole answer. Hidden states,
            attentions and caches are those of the model.

        Raises:
            InputError: neither prompts nor input_ids, or weights of another shape or range.
        """
        with self._gate.lock:
            ids, mask = self._inputs(prompts, input_ids, attention_mask)
            plan = self._router.plan(weights, prompts, ids, mask)
            watched = self.watched(plan, ids, mask)
            if not watched:
                return self._run(ids, mask, plan, options)
            held = HeldStreamer(options["streamer"]) if options.get("streamer") is not None else None
            state, last = torch.get_rng_state(), 2
            for attempt in range(last + 1):
                torch.set_rng_state(state)  # rows without a hit draw the same samples again
                if held is not None:
                    held.held.clear()
                output = self._run(ids, mask, plan, options | ({"streamer": held} if held else {}))
                fired = self._judge(output, watched, (ids, mask, plan)) if attempt < last else None
                if fired is None or not bool(fired.any()):
                    break
                plan = self._router.raise_weights(plan, fired, refuse=attempt > 0)
            if held is not None:
                held.release()
            return output

    def _run(self, ids: Tensor, mask: Tensor, plan: Plan, options: Mapping[str, Any]) -> Any:
        """Generates at the strengths and with the refusals of a plan."""
        if not bool(mask.all()) and self._ignores_padding_mask():
            return self._run_one_by_one(ids, mask, plan, options)
        processors = LogitsProcessorList(options.get("logits_processor") or [])
        if bool(plan.refused.any()):
            processors.append(RefusalProcessor(plan.refused, self._refusal, ids.shape[1]))
        given = {**options, **self.base.stops(options, ids.shape[1]), "logits_processor": processors}
        with self._gate.open(plan.strengths.to(self.device)):
            output = self.base.model.generate(input_ids=ids, attention_mask=mask, **given)
        return self._refuse_generated(output, plan.refused, ids.shape[1])

    def _ignores_padding_mask(self) -> bool:
        """Whether the base model, without any adapter, reads padding as text."""
        with self._gate.open(torch.zeros(1, len(self.ids))):
            return self.base.ignores_padding_mask

    def _run_one_by_one(self, ids: Tensor, mask: Tensor, plan: Plan, options: Mapping[str, Any]) -> Tensor:
        """Generates row by row without padding, for a model that reads no attention mask."""
        if options.get("return_dict_in_generate") or options.get("streamer") is not None:
            message = "the base model reads no attention mask; give prompts of one length, or one at a time"
            raise InputError(message, field="prompts")
        found, pad = [], self.tokens.pad_id
        for row in range(len(ids)):
            own = ids[row : row + 1, mask[row].bool()]
            output = self._run(own, torch.ones_like(own), plan.rows([row]), options)
            before = ids[row : row + 1].expand(len(output), -1)
            found.append(torch.cat([before, output[:, own.shape[1] :]], dim=1))
        width = max(part.shape[1] for part in found)
        return torch.cat([F.pad(part, (0, width - part.shape[1]), value=pad) for part in found])

    def watched(self, plan: Plan, ids: Tensor, mask: Tensor) -> dict[int, tuple[str, str]]:
        """Returns text and question of each row whose answer is checked: it names a forgotten subject."""
        mode, gate = self.gate_config.check_answers, self._answer_gate
        if mode == "off" or not gate.columns or self._router.is_disabled:
            return {}
        between = ((plan.weights > 0) & (plan.weights < 1)) | (plan.suspect > 0)
        rows = [
            row
            for row in range(len(ids))
            if not plan.refused[row] and (mode == "on" or bool(between[row].any()))
        ]
        texts = {row: self.tokenizer.decode(ids[row][mask[row].bool()]) for row in rows}
        turns = {row: self.base.template.turns(text) for row, text in texts.items() if gate.cues(text)}
        return {row: (texts[row], " ".join(read_turns(said).question)) for row, said in turns.items()}

    def _judge(
        self, output: Any, watched: Mapping[int, tuple[str, str]], inputs: tuple[Tensor, Tensor, Plan]
    ) -> Tensor:
        """Returns which requests' values the generated sequences of each row tell [B,K]."""
        ids, mask, plan = inputs
        answers = sequences_of(output)[:, ids.shape[1] :]
        count = len(answers) // len(ids)
        fired = torch.zeros(len(ids), len(self.ids), dtype=torch.bool)
        for row, (prompt, asked) in watched.items():
            own, acting = ids[row][mask[row].bool()], plan.rows([row])
            for answer in answers[row * count : (row + 1) * count]:
                for text in self._readings(own, answer[answer.ne(self.tokens.pad_id)].tolist(), acting):
                    fired[row] |= self._answer_gate.judge(prompt, text, asked)
        return fired

    def _readings(self, prompt: Tensor, answer: list[int], plan: Plan) -> set[str]:
        """Returns an answer, and with its last word as the model would end it: a limit may cut a value."""
        answer, text = self.base.cut(answer), self.base.read_answer(answer)
        if not (text[-1:].isalnum() or text.endswith(BROKEN)):
            return {text}
        room = max(1, self.base.context_tokens - WORD_TOKENS)
        ids = torch.cat([prompt, prompt.new_tensor(answer)])[None, -room:]
        options = {"max_new_tokens": WORD_TOKENS, "do_sample": False, "pad_token_id": self.tokens.pad_id}
        more = sequences_of(self._run(ids, torch.ones_like(ids), plan, options))[0, ids.shape[1] :]
        longer = self.base.read_answer([*answer, *more.tolist()])
        return {text, text + "".join(takewhile(str.isalnum, longer[len(text) :]))}

    def __call__(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        labels: Tensor | None = None,
        weights: Tensor | Plan | None = None,
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
            **options: for the base model's forward. `past_key_values` of an earlier call hide what their
                tokens say, so they require weights or prompts.

        Returns:
            The base model's output; with labels its `loss` is the mean over all labels. The logits of a
            refused row give the refusal from its first label on, or, without labels, after its last token.

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
        weights: Tensor | Plan | None,
        input_ids: Tensor,
        attention_mask: Tensor,
        prompts: Sequence[Prompt] | None = None,
    ) -> Iterator[Tensor]:
        """Within, the base model runs each row at its own weights, as in one call of this model.

        Other threads wait until it is left. Calls of this model within run at their own weights.

        Args:
            weights: [B,K] as in `generate`; None asks the detectors.
            input_ids: [B,T] tokens that hold the prompts.
            attention_mask: [B,T], 1 at the prompts' tokens.
            prompts: as in `generate`.

        Yields:
            Which rows are refused [B]; `refuse` sets their logits to the refusal.

        Raises:
            InputError: weights of another shape or range.
        """
        plan = self._router.plan(weights, prompts, input_ids, attention_mask)
        with self._gate.open(plan.strengths.to(self.device)):
            yield plan.refused

    def refuse(self, logits: Tensor, refused: Tensor, starts: Tensor) -> Tensor:
        """Returns logits [B,T,V] in which refused rows [B] predict the refusal from `starts` [B] on."""
        confidence = self.gate_config.refusal_confidence
        return refuse_logits(logits, refused, starts, self._refusal, confidence)

    def _refuse_generated(self, output: Any, refused: Tensor, prompt_length: int) -> Any:
        """Writes the refusal into the output of `generate` where the logits processor did not."""
        if not bool(refused.any()):
            return output
        pad = self.tokens.pad_id
        if isinstance(output, Tensor):
            return overwrite_refused(output, refused, self._refusal, prompt_length, pad)
        output.sequences = overwrite_refused(output.sequences, refused, self._refusal, prompt_length, pad)
        if output.get("logits"):  # unprocessed logits of each step; `scores` are processed already
            logits = torch.stack(output.logits, 1)
            starts = torch.ones(len(logits), dtype=torch.int64)
            output.logits = self.refuse(logits, match_rows(refused, len(logits)), starts).unbind(1)
        return output

    def _inputs(
        self, prompts: Sequence[Prompt] | None, ids: Tensor | None, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        if ids is not None:
            return ids, self.tokens.mask(ids, mask)
        if not prompts:
            raise InputError("expected prompts or input_ids, got neither")
        return self.tokens.pad([self.tokens.encode(prompt) for prompt in prompts])


def sequences_of(output: Any) -> Tensor:
    """Returns the token ids [N,T] that `generate` gave, in either of its forms."""
    return output if isinstance(output, Tensor) else output.sequences
