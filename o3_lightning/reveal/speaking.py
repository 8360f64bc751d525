"""Queries to the model: sampled answers, hidden states of instructions, and likelihoods of answers.

Shapes: N arms, S soft tokens, T tokens, D width of the hidden states.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from o3_lightning.data.encoding import IGNORED, Example, collate, encode_pairs, encode_prompts
from o3_lightning.metrics.token_scores import TokenScores, score_tokens
from o3_lightning.models.base import BaseModel
from o3_lightning.reveal.arms import Arm
from o3_lightning.reveal.config import SamplingConfig


class Speaker:
    """Sends instructions to a model."""

    def __init__(self, base: BaseModel, config: SamplingConfig) -> None:
        self.base, self.config = base, config

    @property
    def width(self) -> int:
        """The embedding width of the model."""
        return int(self.base.model.get_input_embeddings().weight.shape[1])

    @torch.inference_mode()
    def contexts(self, arms: Sequence[Arm], topic: str) -> Tensor:
        """Returns the last hidden state of the last token of each instruction, [N, D] float32 on the CPU.

        Raises:
            InputError: an instruction exceeds the context of the model.
        """
        rows = []
        for start in range(0, len(arms), self.config.batch_size):
            parts = [self.embed(arm, topic) for arm in arms[start : start + self.config.batch_size]]
            embeddings, mask = pad(parts, left=False)
            output = self.base.model(
                inputs_embeds=embeddings, attention_mask=mask, output_hidden_states=True, use_cache=False
            )
            states = output.hidden_states[-1][torch.arange(len(parts)), mask.sum(1) - 1]
            rows.append(states.float().cpu())
        return torch.cat(rows)

    def embed(self, arm: Arm, topic: str) -> Tensor:
        """Returns the embeddings [T, D] of a templated instruction, with soft tokens before its text."""
        base, device = self.base, next(self.base.model.parameters()).device
        ids = encode_prompts(base.tokenizer, base.template, [arm.prompt(topic)], base.context_tokens)[0]
        table = base.model.get_input_embeddings()
        embedded: Tensor = table(torch.tensor(ids, device=device))
        if arm.soft is None:
            return embedded
        special = base.template.adds_special_tokens
        opening = base.tokenizer(base.template.before, add_special_tokens=special)["input_ids"]
        place = 0
        while ids[place : place + 1] == opening[place : place + 1] != []:
            place += 1
        soft = arm.soft.to(device, embedded.dtype)
        return torch.cat([embedded[:place], soft, embedded[place:]])

    @torch.inference_mode()
    def answers(self, arm: Arm, topic: str, seed: int) -> list[str]:
        """Returns the distinct sampled answers to an instruction that are not empty, in order."""
        config, options = self.config, dict[str, Any](do_sample=False)
        if config.temperature:
            options = {"do_sample": True, "temperature": config.temperature, "top_k": 0, "top_p": 1.0}
        embedded = self.embed(arm, topic)[None].expand(config.samples if config.temperature else 1, -1, -1)
        mask = torch.ones(embedded.shape[:2], dtype=torch.long)
        with torch.random.fork_rng(devices=[embedded.device] if embedded.is_cuda else []):
            torch.manual_seed(seed)
            texts = self.generate(embedded, mask, options)
        return [text for text in dict.fromkeys(texts) if text]

    @torch.inference_mode()
    def greedy(self, prompts: Sequence[str]) -> list[str]:
        """Returns the greedy answer to each prompt, which may be empty."""
        found: list[str] = []
        for start in range(0, len(prompts), self.config.batch_size):
            chosen = prompts[start : start + self.config.batch_size]
            embeddings, mask = pad([self.embed(Arm(prompt), "") for prompt in chosen], left=True)
            found += self.generate(embeddings, mask, {"do_sample": False})
        return found

    def generate(self, embeddings: Tensor, mask: Tensor, options: Mapping[str, Any]) -> list[str]:
        """Returns the generated texts of a batch."""
        room = self.base.context_tokens - embeddings.shape[1]
        tokens = self.base.model.generate(
            inputs_embeds=embeddings,
            attention_mask=mask.to(embeddings.device),
            max_new_tokens=max(1, min(self.config.max_new_tokens, room)),
            pad_token_id=self.base.tokenizer.pad_token_id,
            **self.base.stops(options, 0),
            **options,
        )
        return [self.base.read_answer(row) for row in tokens.tolist()]

    @torch.inference_mode()
    def token_scores(self, prompts: Sequence[str], answers: Sequence[str]) -> list[TokenScores]:
        """Returns the scores of the tokens of each answer, including the end token."""
        base = self.base
        examples = encode_pairs(base.tokenizer, base.template, prompts, answers, base.context_tokens)
        batches = labelled_logits(base, examples, self.config.batch_size)
        return [scores for batch in batches for scores in score_tokens(*batch)]

    def likelihoods(self, prompts: Sequence[str], answers: Sequence[str]) -> list[float]:
        """Returns the geometric mean of the token probabilities of each answer, in [0, 1]."""
        return [math.exp(-scores.loss) for scores in self.token_scores(prompts, answers)]


def labelled_logits(
    base: BaseModel, examples: Sequence[Example], batch_size: int
) -> Iterator[tuple[Tensor, Tensor, list[int]]]:
    """Yields per batch the logits [N, V] that predict labels, the labels [N] and their number per row."""
    device = next(base.model.parameters()).device
    for start in range(0, len(examples), batch_size):
        batch = collate(examples[start : start + batch_size], base.tokenizer.pad_token_id).to(device)
        output = base.model(input_ids=batch.input_ids, attention_mask=batch.attention_mask, use_cache=False)
        labels = batch.labels[:, 1:]
        labelled = labels != IGNORED
        yield output.logits[:, :-1][labelled], labels[labelled], labelled.sum(1).tolist()


def pad(parts: Sequence[Tensor], *, left: bool) -> tuple[Tensor, Tensor]:
    """Returns the padded embeddings [N, T, D] and the mask [N, T] of sequences of several lengths."""
    longest = max(len(part) for part in parts)
    embeddings = parts[0].new_zeros(len(parts), longest, parts[0].shape[1])
    mask = torch.zeros(len(parts), longest, dtype=torch.long, device=parts[0].device)
    for row, part in enumerate(parts):
        place = slice(longest - len(part), longest) if left else slice(0, len(part))
        embeddings[row, place], mask[row, place] = part, 1
    return embeddings, mask
