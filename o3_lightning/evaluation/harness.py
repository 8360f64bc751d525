"""Our models as a backend of lm-evaluation-harness, under the name "o3".

    python -m o3_lightning.evaluation.harness run --model o3 --model_args store=STORE --tasks mmlu

The context alone decides the weights, which are held for its continuation, so that all choices of a
multiple-choice question run at the same weights. A text without context (rolling likelihood) is its own
prompt.

It needs the extra `harness`; without it the import raises ImportError.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from lm_eval.api.instance import Instance
from lm_eval.api.model import TemplateLM
from lm_eval.api.registry import register_model
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from o3_lightning.common.errors import InputError
from o3_lightning.data.encoding import IGNORED, Example, collate, prefix_ids
from o3_lightning.evaluation.passes import BatchRunner
from o3_lightning.evaluation.reference import plain_model
from o3_lightning.gating.answer_logits import answer_logits
from o3_lightning.gating.answering import generate_tokens
from o3_lightning.gating.config import GateConfig
from o3_lightning.gating.model import GatedModel
from o3_lightning.models.base import load_base
from o3_lightning.models.config import BaseConfig
from o3_lightning.models.settings import recorded_config
from o3_lightning.store.view import StoreView

logger = logging.getLogger(__name__)
MAX_NEW_TOKENS = 256  # where a task names no limit; the harness's own default
Pair = tuple[tuple[str, str], list[int], list[int]]


@register_model("o3")
class O3LM(TemplateLM):
    """A gated model for lm-evaluation-harness.

    Args:
        store: the store of a run; empty for the base model alone.
        base: as `base.id`; empty for the one that the store names, or without a store the embedded one.
        model: a loaded model instead of both, for use in Python.
        batch_size: texts per batch.
        dtype: of the base model; empty takes the one that the store records, or float32.
        device: of the base model, or "auto"; "auto" also for CUDA on a machine without.

    Raises:
        InputError: the store or the model cannot be loaded.
    """

    backend = "causal"

    def __init__(
        self,
        store: str = "",
        base: str = "",
        model: GatedModel | None = None,
        batch_size: int | str = 16,
        dtype: str = "",
        device: str | None = None,
        **_: Any,
    ) -> None:
        super().__init__()
        self.gated = model or open_model(store, base, dtype, device or "auto")
        size = int(batch_size) if str(batch_size).isdigit() else 16
        self.runner = BatchRunner(size, name="o3")

    @property
    def eot_token_id(self) -> int:
        """The token that precedes a text without context."""
        tokenizer = self.gated.tokenizer
        start = tokenizer.bos_token_id
        return int(tokenizer.eos_token_id if start is None else start)

    @property
    def tokenizer_name(self) -> str:
        """The name of the harness's cache."""
        return str(self.gated.base.id).replace("/", "__")

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """Returns a chat as the tokenizer's own template writes it."""
        chat = self.gated.base.template.chat
        if chat is None:
            raise InputError("the base model has no chat template; leave out --apply_chat_template")
        return chat.render(chat_history, open_answer=add_generation_prompt)

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Returns the tokens of a text without a template.

        None adds the start token unless the text is in the chat template, which writes its own.
        """
        template = self.gated.base.template
        applied = template.chat is not None and bool(template.opening) and template.opening in string
        add = not applied if add_special_tokens is None else add_special_tokens
        return prefix_ids(self.gated.tokenizer, replace(template, adds_special_tokens=add), string)

    def weights(self, contexts: Sequence[str]) -> torch.Tensor:
        """Returns the weights [B,K] of contexts; those in the model's template are judged as chats."""
        turns = [self.gated.base.template.turns(text) for text in contexts]
        chats = [[{"role": turn.role, "content": turn.text} for turn in row] for row in turns]
        return self.gated.weights(chats)

    def _loglikelihood_tokens(
        self, requests: list[Pair], disable_tqdm: bool = False, **_: Any
    ) -> list[tuple[float, bool]]:
        """Returns the log-likelihood of each continuation, and whether greedy decoding gives it."""
        limit = self.gated.base.context_tokens
        rows = [fit(context, continuation, limit) for _, context, continuation in requests]
        texts = [pair[0][0] or pair[0][1] for pair in requests]

        def score(chosen: list[int]) -> list[torch.Tensor]:
            batch = collate([rows[row] for row in chosen], self.gated.tokens.pad_id).to(self.gated.device)
            weights = self.weights([texts[row] for row in chosen])
            likely, same = [], []
            for logits, targets in answer_logits(self.gated, batch, weights):
                share = logits.float().log_softmax(-1)
                likely.append(share.gather(1, targets[:, None]).squeeze(1).cpu())
                same.append((share.argmax(-1) == targets).cpu())
            lengths = (batch.labels[:, 1:] != IGNORED).sum(1).tolist()
            values, hits = torch.split(torch.cat(likely), lengths), torch.split(torch.cat(same), lengths)
            parts = zip(values, hits, strict=True)
            return [torch.stack([value.double().sum(), hit.all().double()]) for value, hit in parts]

        found = self.runner.map([len(row["input_ids"]) for row in rows], score, "likelihood", torch.float64)
        return [(value.item(), bool(hit)) for value, hit in found]

    def loglikelihood_rolling(self, requests: list[Instance], disable_tqdm: bool = False) -> list[float]:
        """Returns the log-likelihood of whole texts, in the harness's windows of the model's context."""
        step, found = self.gated.base.context_tokens - 1, []
        for request in requests:
            (text,) = request.args
            tokens = self.tok_encode(text, add_special_tokens=False)
            windows = get_rolling_token_windows(tokens, self.eot_token_id, step, context_len=1)
            pairs = [((text, ""), *make_disjoint_window(window)) for window in windows]
            found.append(sum(value for value, _ in self._loglikelihood_tokens(pairs)))
        return found

    def generate_until(self, requests: list[Instance], disable_tqdm: bool = False) -> list[str]:
        """Returns greedy continuations, each cut at its task's stop words."""
        contexts = [str(request.args[0]) for request in requests]
        options = [dict(request.args[1]) for request in requests]
        limits = [int(each.get("max_gen_toks", MAX_NEW_TOKENS)) for each in options]
        found = [""] * len(requests)
        for limit in dict.fromkeys(limits):  # one per batch, because it bounds the contexts
            chosen = [row for row, each in enumerate(limits) if each == limit]
            texts = self.continue_texts([contexts[row] for row in chosen], limit)
            for row, text in zip(chosen, texts, strict=True):
                stops = options[row].get("until") or []
                for stop in filter(None, [stops] if isinstance(stops, str) else stops):
                    text = text.split(stop)[0]
                found[row] = text
        return found

    def continue_texts(self, contexts: Sequence[str], limit: int) -> list[str]:
        """The greedy continuation of each context, at most `limit` tokens."""
        room = max(1, self.gated.base.context_tokens - limit)
        rows = [self.tok_encode(text)[-room:] for text in contexts]

        def generate(chosen: list[int]) -> list[torch.Tensor]:
            weights = self.weights([contexts[row] for row in chosen])
            tokens = generate_tokens(self.gated, [rows[row] for row in chosen], weights, limit, len(chosen))
            return [torch.tensor(part, dtype=torch.int64) for part in tokens]

        found = self.runner.map([len(row) for row in rows], generate, "generation", torch.int64)
        return [self.gated.tokenizer.decode(row.tolist(), skip_special_tokens=True) for row in found]


def open_model(store: str, base: str, dtype: str, device: str) -> GatedModel:
    """Returns the gated model of a store, or a base model without a gate."""
    named = StoreView.open(store) if store else None
    config = BaseConfig(id=base or (named.base_id if named else BaseConfig.id), device=follow_machine(device))
    seed: dict[str, Any] = {}
    if named and named.base_settings:
        config, seed["seed"] = recorded_config(config, named.base_settings)
    loaded = load_base(replace(config, dtype=dtype or config.dtype), **seed)
    return GatedModel.from_store(store, loaded, None, GateConfig()) if store else plain_model(loaded)


def follow_machine(device: str) -> str:
    """Returns the device, "auto" instead of a GPU that is not there: the harness asks for CUDA unasked."""
    if device.startswith("cuda") and not torch.cuda.is_available():
        logger.warning("there is no CUDA device on this machine; the harness asked for %s", device)
        return "auto"
    return device


def fit(context: list[int], continuation: list[int], limit: int) -> Example:
    """One example whose context is cut on the left where both do not fit."""
    kept = continuation[-(limit - 1) :]
    before = context[-(limit - len(kept)) :]
    return {
        "input_ids": before + kept,
        "attention_mask": [1] * (len(before) + len(kept)),
        "labels": [IGNORED] * len(before) + kept,
    }


if __name__ == "__main__":
    from lm_eval.__main__ import cli_evaluate

    cli_evaluate()
