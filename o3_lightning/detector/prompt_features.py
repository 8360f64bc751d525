"""What a detector reads of a set of prompts: normalised texts, tokens, features."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from o3_lightning.common.errors import InputError
from o3_lightning.detector.config import DetectorConfig
from o3_lightning.detector.constants import (
    LEAST_LETTERS,
    MOST_UNKNOWN,
    NAME_SHARE,
    NAMED_SHARE,
    SUBJECT_SHARE,
)
from o3_lightning.detector.encoder import Encoder
from o3_lightning.detector.entity_direction import find_subject
from o3_lightning.detector.name_table import UNSPACED
from o3_lightning.detector.text import normalise_text
from o3_lightning.detector.text.people import named_people

UNSPACED_LETTER = re.compile(f"[{UNSPACED}]")


@dataclass(frozen=True)
class PromptInputs:
    """N prompts as the detector sees them.

    Args:
        tokens: token ids of each prompt, special tokens included.
        words: the same without special tokens.
        features: pooled features [N, L, D] of every layer.
        other_words: words of further prompts that were too many to be encoded.
        subject: tokens of the names that the prompts are about, from `find_subject`.
        named: whether most prompts name people.
    """

    tokens: list[list[int]]
    words: list[list[int]]
    features: Tensor
    other_words: tuple[list[int], ...] = ()
    subject: frozenset[int] = frozenset()
    named: bool = False

    def __len__(self) -> int:
        return len(self.tokens)

    def rows(self, chosen: Tensor) -> Self:
        """Returns the prompts with these numbers, without any others."""
        numbers = chosen.tolist()
        return type(self)(
            [self.tokens[n] for n in numbers], [self.words[n] for n in numbers], self.features[chosen]
        )


def read_tokens(encoder: Encoder, tokens: list[list[int]]) -> PromptInputs:
    """Returns the inputs for token ids."""
    return PromptInputs(tokens, encoder.words(tokens), encoder.encode_tokens(tokens))


def read_inputs(
    encoder: Encoder, prompts: Sequence[str], config: DetectorConfig, seed: int
) -> tuple[PromptInputs, list[str]]:
    """Returns the distinct forget prompts that hold text, and a warning for each thing that was left out.

    Under the pooling "padded_mean" all prompts are read as they come: what a feature is depends on the others
    of its batch. Of more than `config.most_rows` a random sample is encoded, so that time and memory are
    bounded.

    Raises:
        InputError: no prompt holds any text, or one is not a string.
    """
    for index, prompt in enumerate(prompts):
        if not isinstance(prompt, str):
            message = f"prompt {index + 1}: expected a string, got {type(prompt).__name__}"
            raise InputError(message, field="prompts")
    texts = [normalise_text(prompt) for prompt in prompts]
    with_text = [text for text in texts if text.strip()]
    if not with_text:
        raise InputError(
            f"expected at least one forget prompt with some text, got {len(prompts)} without", field="prompts"
        )
    warnings = []
    if config.pooling != "padded_mean":
        distinct = list(dict.fromkeys(with_text))
        if len(with_text) < len(texts):
            warnings.append(f"{len(texts) - len(with_text)} prompts without text are left out")
        if len(distinct) < len(with_text):
            warnings.append(f"{len(with_text) - len(distinct)} prompts that repeat another are left out")
        texts = distinct
    tokens = encoder.tokenize(texts)
    long = sum(len(row) >= encoder.max_tokens for row in tokens)
    if long:
        warnings.append(f"{long} prompts are cut to the {encoder.max_tokens} tokens the encoder reads")
    warnings += warn_unreadable(encoder, texts, tokens)
    subject = read_subject(encoder, prompts, config)
    named = sum(bool(named_people(prompt)) for prompt in prompts) >= NAMED_SHARE * len(prompts)
    if len(texts) <= config.most_rows:
        inputs = read_tokens(encoder, tokens)
    else:
        warnings.append(
            f"fitted on a random {config.most_rows} of {len(texts)} prompts, and on the words of all"
        )
        order = torch.randperm(len(tokens), generator=torch.Generator().manual_seed(seed)).tolist()
        inputs = read_tokens(encoder, [tokens[place] for place in order[: config.most_rows]])
        others = encoder.words([tokens[place] for place in order[config.most_rows :]])
        inputs = replace(inputs, other_words=tuple(others))
    return replace(inputs, subject=subject, named=named), warnings


def warn_unreadable(encoder: Encoder, texts: Sequence[str], tokens: Sequence[Sequence[int]]) -> list[str]:
    """Returns a warning where the prompts are of a language that the encoder was not trained on.

    It knows many tokens not at all, or spells words letter by letter. English has 4.5 letters a token under
    MiniLM, German 2.7, Vietnamese 1.7; Russian, Greek, Arabic and Hindi 1.0 to 1.2. Scripts without spaces
    are judged by unknown tokens alone.
    """
    words = encoder.words(tokens)
    advice = "only their names are recognised: choose one that reads their language (detector.encoder)"
    unknown, total = sum(row.count(encoder.tokenizer.unk_token_id) for row in words), sum(map(len, words))
    if unknown > MOST_UNKNOWN * total:
        return [f"{unknown} tokens of the prompts are unknown to the encoder {encoder.id}; {advice}"]
    letters = sum(char.isalpha() for text in texts for char in text)
    if letters < LEAST_LETTERS * total and not any(UNSPACED_LETTER.search(text) for text in texts):
        share = f"{letters / total:.1f} letters a token"
        return [f"the encoder {encoder.id} spells the prompts letter by letter ({share}); {advice}"]
    return []


def read_subject(encoder: Encoder, prompts: Sequence[str], config: DetectorConfig) -> frozenset[int]:
    """Returns the tokens of the names that prompts are about; none where no channel asks for them."""
    if "subject" not in config.channels:
        return frozenset()

    def pieces(word: str) -> list[int]:
        return encoder.words(encoder.tokenize([f" {normalise_text(word)}"]))[0]

    distinct = list(dict.fromkeys(prompts))
    return find_subject(distinct, pieces, name_share=NAME_SHARE, subject_share=SUBJECT_SHARE)


def special_ids(encoder: Encoder) -> set[int]:
    """Returns the ids that are no part of a prompt's text."""
    return set(encoder.tokenizer.all_special_ids)


def select_layers(features: Tensor, layers: int) -> Tensor:
    """Returns the features of the last layers [N, min(layers, L), D]."""
    return features[:, -min(layers, features.shape[1]) :]


def stack_inputs(parts: Sequence[PromptInputs]) -> PromptInputs:
    """Returns several sets of prompts as one."""
    tokens = [row for part in parts for row in part.tokens]
    words = [row for part in parts for row in part.words]
    return PromptInputs(tokens, words, torch.cat([part.features for part in parts]))
