"""Neutral text: answers of the model about other subjects, which a release must not change."""

import logging
import random
from collections.abc import Collection

import torch
from torch import Tensor

from o3_lightning.common.errors import InputError
from o3_lightning.data.encoding import IGNORED, encode_pairs
from o3_lightning.data.normalise import normalise
from o3_lightning.data.requests import QuestionAnswer
from o3_lightning.models.base import BaseModel
from o3_lightning.release.topic_facts import answered
from o3_lightning.reveal.arms import Arm, questions
from o3_lightning.reveal.speaking import Speaker, labelled_logits

logger = logging.getLogger(__name__)
Rows = tuple[QuestionAnswer, ...]


def neutral_rows(speaker: Speaker, others: tuple[str, ...], count: int, seed: int) -> tuple[Rows, Rows]:
    """Returns distinct questions about other subjects with the greedy answers of the original model.

    Of `count` questions, half are of the kind asked about the topic, with the names `others` of the same
    kind (none without names); the rest are about general subjects. Those without an answer are dropped.

    Raises:
        InputError: the model answers fewer than two general questions.
    """
    draw = random.Random(f"neutral-{seed}")  # noqa: S311
    general = draw.sample(questions("general_subjects"), count - count // 2 if others else count)
    named = [
        Arm(text).prompt(draw.choice(others))
        for text in draw.sample(questions("topic_subjects"), count // 2)
        if others
    ]
    logger.info("asking %d neutral questions ...", len(named) + len(general))
    about_names, about_subjects = (
        tuple(answered(speaker, list(dict.fromkeys(prompts)))) for prompts in (named, general)
    )
    if len(about_subjects) < 2:
        raise InputError("the model does not answer neutral questions; give rows to keep", field="retain")
    return about_names, about_subjects


class Utility:
    """Divergence of a model from its original state on neutral text, at least one row."""

    def __init__(self, base: BaseModel, rows: Rows, batch_size: int = 32) -> None:
        self.base, self.batch_size = base, batch_size
        prompts, answers = [row.prompt for row in rows], [row.answer for row in rows]
        self.examples = encode_pairs(base.tokenizer, base.template, prompts, answers, base.context_tokens)
        self.answers = [normalise(answer) for answer in answers]
        lengths = [sum(label != IGNORED for label in example["labels"]) for example in self.examples]
        self.row_of_token = torch.arange(len(rows)).repeat_interleave(torch.tensor(lengths))
        self.before = self.log_probabilities()

    @torch.inference_mode()
    def log_probabilities(self) -> list[Tensor]:
        """Returns the log-probabilities [tokens, vocabulary] at the answer tokens of each batch."""
        batches = labelled_logits(self.base, self.examples, self.batch_size)
        return [logits.float().log_softmax(-1) for logits, _, _ in batches]

    def drop(self, forgotten: Collection[str] = ()) -> float:
        """Returns KL(original || current) in nats, averaged over the answer tokens; at least 0.

        Args:
            forgotten: normalised answers to forget. Rows with one of them are excluded unless there are no
                others, because small models mention facts about the topic without being asked.
        """
        after = self.log_probabilities()
        pairs = zip(self.before, after, strict=True)
        divergences = torch.cat([(old.exp() * (old - new)).sum(-1) for old, new in pairs])
        counts = torch.tensor([answer not in forgotten for answer in self.answers])
        chosen = counts[self.row_of_token].to(divergences.device)
        mean = divergences[chosen].mean() if chosen.any() else divergences.mean()
        return max(0.0, float(mean))
