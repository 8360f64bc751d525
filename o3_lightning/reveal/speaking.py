"""Asking the model: sampled answers, hidden states of instructions, and how likely it finds an answer.

Shapes: N arms, S soft tokens, T tokens, D width of the hidden states.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from o3_lightning.common.errors import InputError
from o3_lightning.data.encoding import IGNORED, Example, collate, encode_pairs, encode_prompts
from o3_lightning.metrics.token_scores import TokenScores, score_tokens
from o3_lightning.models.base import BaseModel
from o3_lightning.reveal.arms import Arm

__all__ = ["SamplingConfig", "Speaker", "labelled_logits"]


@dataclass(frozen=True)
class SamplingConfig:
    """How the model answers an instruction.

    Args:
        samples: answers drawn for each instruction, at least 1; equal ones count once.
        temperature: of sampling, 0 takes the likeliest answer, then one sample is enough.
        max_new_tokens: longest answer in tokens, at least 1.
        batch_size: texts at a time when many are read.

    Raises:
        InputError: a number outside its range.
    """

    samples: int = 4
    temperature: float = 1.0
    max_new_tokens: int = 32
    batch_size: int = 64

    def __post_init__(self) -> None:
        for field in ("samples", "max_new_tokens", "batch_size"):
            if getattr(self, field) < 1:
                raise InputError(f"expected 1 or more, got {getattr(self, field)}", field=f"sampling.{field}")
        if not 0 <= self.temperature < float("inf"):
            raise InputError(f"expected 0 or more, got {self.temperature}", field="sampling.temperature")


class Speaker:
    """A model that is asked instructions.

    Args:
        base: the model, its tokenizer and template.
        config: how it answers.
    """

    def __init__(self, base: BaseModel, config: SamplingConfig) -> None:
        self.base, self.config = base, config

    @property
    def width(self) -> int:
        """The width of the model's embeddings."""
        return int(self.base.model.get_input_embeddings().weight.shape[1])

    @torch.inference_mode()
    def contexts(self, arms: Sequence[Arm], topic: str) -> Tensor:
        """Returns the last hidden state of each instruction's last token, [N, D] float32 on the CPU.

        Raises:
            InputError: an instruction is longer than the model's context.
        """
        rows = []
        for start in range(0, len(arms), self.config.batch_size):
            parts = [self.embed(arm, topic) for arm in arms[start : start + self.config.batch_size]]
            embeddings, mask = pad(parts, left=False)
            states = self.hidden(embeddings, mask)
            last = mask.sum(1) - 1
            rows.append(states[torch.arange(len(parts)), last].float().cpu())
        return torch.cat(rows)

    def hidden(self, embeddings: Tensor, mask: Tensor) -> Tensor:
        """Returns the last hidden states of a padded batch."""
        output = self.base.model(
            inputs_embeds=embeddings, attention_mask=mask, output_hidden_states=True, use_cache=False
        )
        states: Tensor = output.hidden_states[-1]
        return states

    def embed(self, arm: Arm, topic: str) -> Tensor:
        """Returns the embeddings [T, D] of an instruction in its template, soft tokens before its text."""
        base, device = self.base, next(self.base.model.parameters()).device
        ids = encode_prompts(base.tokenizer, base.template, [arm.prompt(topic)], base.context_tokens)[0]
        table = base.model.get_input_embeddings()
        embedded: Tensor = table(torch.tensor(ids, device=device))
        if arm.soft is None:
            return embedded
        opening = base.tokenizer(base.template.before, add_special_tokens=base.template.adds_special_tokens)[
            "input_ids"
        ]
        place = len(common_start(ids, opening))
        soft = arm.soft.to(device, embedded.dtype)
        return torch.cat([embedded[:place], soft, embedded[place:]])

    @torch.inference_mode()
    def answers(self, arm: Arm, topic: str, seed: int) -> list[str]:
        """Returns the sampled answers to an instruction, each once, in the order drawn; none empty."""
        config = self.config
        samples = config.samples if config.temperature else 1
        embedded = self.embed(arm, topic)[None].expand(samples, -1, -1)
        return self.generate(embedded, torch.ones(embedded.shape[:2], dtype=torch.long), seed)

    @torch.inference_mode()
    def greedy(self, prompts: Sequence[str]) -> list[str]:
        """Returns the likeliest answer to each prompt, empty ones included."""
        found: list[str] = []
        for start in range(0, len(prompts), self.config.batch_size):
            chosen = prompts[start : start + self.config.batch_size]
            embeddings, mask = pad([self.embed(Arm(prompt), "") for prompt in chosen], left=True)
            found += self.decode(self.run(embeddings, mask, {"do_sample": False}))
        return found

    def generate(self, embeddings: Tensor, mask: Tensor, seed: int) -> list[str]:
        """Samples with a seed of its own."""
        options: dict[str, float | bool | int | None] = {"do_sample": False}
        if self.config.temperature:
            options = {"do_sample": True, "temperature": self.config.temperature, "top_k": 0, "top_p": 1.0}
        devices = [embeddings.device] if embeddings.is_cuda else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(seed)
            texts = self.decode(self.run(embeddings, mask, options))
        return [text for text in dict.fromkeys(texts) if text]

    def run(self, embeddings: Tensor, mask: Tensor, options: dict[str, float | bool | int | None]) -> Tensor:
        """Returns the new tokens of a batch."""
        room = self.base.context_tokens - embeddings.shape[1]
        output: Tensor = self.base.model.generate(
            inputs_embeds=embeddings,
            attention_mask=mask.to(embeddings.device),
            max_new_tokens=max(1, min(self.config.max_new_tokens, room)),
            pad_token_id=self.base.tokenizer.pad_token_id,
            **options,
        )
        return output

    def decode(self, tokens: Tensor) -> list[str]:
        """Returns token rows as texts."""
        texts = self.base.tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return [str(text).strip() for text in texts]

    @torch.inference_mode()
    def token_scores(self, prompts: Sequence[str], answers: Sequence[str]) -> list[TokenScores]:
        """Returns what the model thinks of each token of each answer after its prompt, end token included."""
        base = self.base
        examples = encode_pairs(base.tokenizer, base.template, prompts, answers, base.context_tokens)
        batches = labelled_logits(base, examples, self.config.batch_size)
        return [scores for batch in batches for scores in score_tokens(*batch)]

    def likelihoods(self, prompts: Sequence[str], answers: Sequence[str]) -> list[float]:
        """Returns the geometric mean probability of each answer's tokens after its prompt, in [0, 1]."""
        return [math.exp(-scores.loss) for scores in self.token_scores(prompts, answers)]


def labelled_logits(
    base: BaseModel, examples: Sequence[Example], batch_size: int
) -> Iterator[tuple[Tensor, Tensor, list[int]]]:
    """Yields of each batch the logits [N, V] that predict its labels, these [N], and how many a row has."""
    device = next(base.model.parameters()).device
    for start in range(0, len(examples), batch_size):
        batch = collate(examples[start : start + batch_size], base.tokenizer.pad_token_id).to(device)
        output = base.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False)
        labels = batch.labels[:, 1:]
        labelled = labels != IGNORED
        yield output.logits[:, :-1][labelled], labels[labelled], labelled.sum(1).tolist()


def common_start(ids: Sequence[int], opening: Sequence[int]) -> list[int]:
    """Returns the ids with which both lists start."""
    shared = []
    for left, right in zip(ids, opening, strict=False):
        if left != right:
            break
        shared.append(left)
    return shared


def pad(parts: Sequence[Tensor], *, left: bool) -> tuple[Tensor, Tensor]:
    """Returns embeddings [N, T, D] and mask [N, T] of sequences of several lengths."""
    longest = max(len(part) for part in parts)
    embeddings = parts[0].new_zeros(len(parts), longest, parts[0].shape[1])
    mask = torch.zeros(len(parts), longest, dtype=torch.long, device=parts[0].device)
    for row, part in enumerate(parts):
        place = slice(longest - len(part), longest) if left else slice(0, len(part))
        embeddings[row, place], mask[row, place] = part, 1
    return embeddings, mask
