"""Converts prompts to token ids and back: templates, padding, and where answers start.

Shapes: B rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from o3_lightning.common.errors import InputError
from o3_lightning.data.encoding import IGNORED, answer_ids, collate, encode_prompts, prefix_ids
from o3_lightning.data.prompts import Prompt, Turn, plain_messages, read_prompt
from o3_lightning.models.base import BaseModel


class PromptTokens:
    """Converts prompts to token ids and back for one base model.

    Args:
        base: provides tokenizer, template and context length.
    """

    def __init__(self, base: BaseModel) -> None:
        self.base, self.tokenizer, self.template = base, base.tokenizer, base.template

    @property
    def pad_id(self) -> int:
        """The padding token; the end token where the tokenizer has none."""
        pad = self.tokenizer.pad_token_id
        return int(pad if pad is not None else self.tokenizer.eos_token_id)

    def encode(self, prompt: Prompt) -> list[int]:
        """Returns the token ids of a prompt in the base model's template.

        Raises:
            InputError: the prompt has no token or leaves no room in the context, or is a chat and the
                tokenizer has no chat template or one that rejects it; or as `read_prompt`.
        """
        read_prompt(prompt)  # within `disabled` no detector would check it
        limit = self.base.context_tokens
        if isinstance(prompt, str):
            ids = encode_prompts(self.tokenizer, self.template, [prompt], limit)[0]
        else:
            ids = self.encode_chat(prompt)
        if not 0 < len(ids) < limit:
            raise InputError(f"expected 1 to {limit - 1} tokens, got {len(ids)}", field="prompts")
        return ids

    def encode_chat(self, messages: Sequence[Mapping[str, Any]]) -> list[int]:
        """Returns the token ids of a chat, up to where the assistant speaks next.

        Raises:
            InputError: the tokenizer has no chat template, or its template rejects the messages.
        """
        if self.template.chat is None:
            message = "the base model has no chat template; give the prompt as a text"
            raise InputError(message, field="prompts")
        if self.template.name != "chat" and [message.get("role") for message in messages] == ["user"]:
            text = plain_messages(messages)[0]["content"]  # the same tokens as for the text alone
            return prefix_ids(self.tokenizer, self.template, self.template.format(text))
        text = self.template.chat.render(messages)
        return list(self.tokenizer(text, add_special_tokens=False)["input_ids"])

    def pad(self, rows: Sequence[list[int]]) -> tuple[Tensor, Tensor]:
        """Returns input ids and attention mask [B,T], padded on the left, on the base model's device."""
        batch = collate([{"input_ids": row} for row in rows], self.pad_id, "left")
        device = self.base.model.device
        return batch.input_ids.to(device), batch.attention_mask.to(device)

    def mask(self, ids: Tensor, mask: Tensor | None, earlier: int = 0) -> Tensor:
        """Returns the attention mask; without one, padding tokens count as padding, as in transformers.

        Args:
            ids: [B,T].
            mask: [B,P+T], or None.
            earlier: P, the number of cached tokens before these; without a mask none of them is padding.
        """
        if mask is not None:
            return mask
        pad = self.tokenizer.pad_token_id
        is_end = pad is None or pad in self.base.end_ids  # such a token may be part of the prompt
        own = torch.ones_like(ids) if is_end else ids.ne(pad).to(ids.dtype)
        return F.pad(own, (earlier, 0), value=1)

    def turns(self, ids: Tensor, mask: Tensor) -> list[list[Turn]]:
        """Returns the turns of each row of templated tokens [B,T], of every role."""
        texts = [self.tokenizer.decode(row[keep.bool()]) for row, keep in zip(ids, mask, strict=True)]
        return [self.template.turns(text) for text in texts]

    def refusal(self, text: str) -> list[int]:
        """Returns the tokens of an answer, as they follow a prompt, and the end of its turn."""
        return answer_ids(self.tokenizer, self.template, text)


def batches(lengths: Sequence[int], size: int) -> list[list[int]]:
    """Returns row numbers in batches of similar length, which minimises padding."""
    order = sorted(range(len(lengths)), key=lambda row: lengths[row])
    return [order[start : start + size] for start in range(0, len(order), size)]


def first_label(labels: Tensor) -> Tensor:
    """Returns the position [B] of each row's first label, T where there is none."""
    labelled = labels.ne(IGNORED)
    return torch.where(labelled.any(1), labelled.int().argmax(1), labels.shape[1])


def before_labels(labels: Tensor) -> Tensor:
    """Returns 1 for the tokens before a row's first label; all tokens where every one is labelled."""
    starts = first_label(labels)
    starts = torch.where(starts == 0, labels.shape[1], starts)
    return (torch.arange(labels.shape[1], device=labels.device)[None] < starts[:, None]).to(labels.dtype)


def last_token(mask: Tensor) -> Tensor:
    """Returns the position [B] of each row's last token."""
    places = torch.arange(mask.shape[1], device=mask.device)[None]
    return (places * mask).argmax(1)
