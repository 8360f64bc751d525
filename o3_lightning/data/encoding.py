"""Texts to token batches: prompts masked out of the labels, the end of the turn learnt with the answer.

Shapes: B rows, T tokens.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from o3_lightning.common.errors import InputError
from o3_lightning.data.templates import PromptTemplate

IGNORED = -100  # the label that torch's cross entropy leaves out
Example = dict[str, list[int]]
logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class TokenBatch:
    """A padded batch.

    Args:
        input_ids: [B, T] int64.
        attention_mask: [B, T] int64, 1 at tokens and 0 at padding.
        labels: [B, T] int64, the answer's tokens, and -100 at the prompt and at padding.
    """

    input_ids: Tensor
    attention_mask: Tensor
    labels: Tensor

    def to(self, device: torch.device | str) -> TokenBatch:
        """Returns the batch on another device."""
        return TokenBatch(self.input_ids.to(device), self.attention_mask.to(device), self.labels.to(device))

    def __len__(self) -> int:
        return int(self.input_ids.shape[0])


def encode_prompts(
    tokenizer: Any, template: PromptTemplate, prompts: Sequence[str], max_tokens: int
) -> list[list[int]]:
    """Returns the token ids the model sees for each prompt, up to where its answer begins.

    Raises:
        InputError: a prompt takes `max_tokens` or more, so that no room is left for an answer.
    """
    ids = [prefix_ids(tokenizer, template, template.format(prompt)) for prompt in prompts]
    for index, row in enumerate(ids):
        if len(row) >= max_tokens:
            message = f"prompt {index + 1} takes {len(row)} tokens, fewer than {max_tokens} are allowed"
            raise InputError(message, field="prompt")
    return ids


def encode_pairs(
    tokenizer: Any,
    template: PromptTemplate,
    prompts: Sequence[str],
    answers: Sequence[str],
    max_tokens: int,
    *,
    label_prompts: bool = False,
) -> list[Example]:
    """Returns one example a row: prompt, answer and end of turn, of which only the last two are labelled.

    A prompt has the same tokens here as in `encode_prompts`, so that training sees what generation sees.

    Args:
        tokenizer: a Hugging Face tokenizer.
        template: how a prompt is written for the model.
        prompts: one a row.
        answers: as many.
        max_tokens: a longer answer is cut at its end (a warning counts them); the prompt never is.
        label_prompts: label the prompt, too, but for its first token, which nothing predicts.

    Returns:
        Dictionaries with "input_ids", "attention_mask" and "labels", all of one row's length.

    Raises:
        InputError: a prompt leaves no room for an answer, or the two lists differ in length.
    """
    if len(prompts) != len(answers):
        raise InputError(f"expected as many answers as prompts, got {len(answers)} for {len(prompts)}")
    prefixes = encode_prompts(tokenizer, template, prompts, max_tokens)
    examples, cut = [], 0
    for prompt, answer, prefix in zip(prompts, answers, prefixes, strict=True):
        answer_ids = continuation_ids(tokenizer, template, prompt, answer, prefix)
        ids = prefix + answer_ids
        cut += len(ids) > max_tokens
        ids = ids[:max_tokens]
        unlabelled = 1 if label_prompts else max(1, len(prefix))
        labels = [IGNORED] * unlabelled + ids[unlabelled:]
        examples.append({"input_ids": ids, "attention_mask": [1] * len(ids), "labels": labels})
    if cut:
        logger.warning("%d of %d answers were cut at %d tokens", cut, len(examples), max_tokens)
    return examples


def prefix_ids(tokenizer: Any, template: PromptTemplate, text: str) -> list[int]:
    """Returns a prompt's ids without the end token that some tokenizers add."""
    ids = list(tokenizer(text, add_special_tokens=template.adds_special_tokens)["input_ids"])
    if len(ids) > 1 and template.adds_special_tokens and ids[-1] == tokenizer.eos_token_id:
        ids.pop()
    return ids


def continuation_ids(
    tokenizer: Any, template: PromptTemplate, prompt: str, answer: str, prefix: list[int]
) -> list[int]:
    """Returns the ids of an answer and of the end of its turn, as they follow the prompt's ids."""
    before, after = template.join(prompt, answer)
    whole = prefix_ids(tokenizer, template, before + after + template.end)
    if whole[: len(prefix)] == prefix and len(whole) > len(prefix):
        return closed(tokenizer, template, whole[len(prefix) :])
    return answer_ids(tokenizer, template, answer)  # the tokenizer merges across the border


def answer_ids(tokenizer: Any, template: PromptTemplate, answer: str) -> list[int]:
    """Returns the ids of an answer alone, with the white space before it and the end of its turn."""
    text = f"{template.answer_before}{answer}{template.end}"
    return closed(tokenizer, template, list(tokenizer(text, add_special_tokens=False)["input_ids"]))


def closed(tokenizer: Any, template: PromptTemplate, ids: list[int]) -> list[int]:
    """Returns an answer's ids with the tokenizer's end token, unless the template ends turns otherwise."""
    end = tokenizer.eos_token_id
    return ids if template.end or end is None or ids[-1:] == [end] else [*ids, end]


def collate(examples: Sequence[Example], pad_id: int, side: Literal["right", "left"] = "right") -> TokenBatch:
    """Pads examples to the longest of them.

    Args:
        examples: from `encode_pairs`; one without "labels" gets -100 everywhere.
        pad_id: the token that fills the rest; it is masked and never labelled.
        side: "right" for training, "left" for generation.

    Raises:
        ValueError: there are no examples.

    Example:
        >>> collate([{"input_ids": [5, 6]}, {"input_ids": [7]}], 0).input_ids.tolist()
        [[5, 6], [7, 0]]
    """
    if not examples:
        raise ValueError("expected at least one example, got none")
    width = max(len(example["input_ids"]) for example in examples)

    def padded(values: list[int], fill: int) -> list[int]:
        missing = [fill] * (width - len(values))
        return values + missing if side == "right" else missing + values

    ids = [padded(example["input_ids"], pad_id) for example in examples]
    mask = [padded([1] * len(example["input_ids"]), 0) for example in examples]
    unlabelled = [example.get("labels", [IGNORED] * len(example["input_ids"])) for example in examples]
    labels = [padded(row, IGNORED) for row in unlabelled]
    return TokenBatch(torch.tensor(ids), torch.tensor(mask), torch.tensor(labels))
