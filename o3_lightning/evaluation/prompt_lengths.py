"""Prompts that leave no room for an answer: refused, cut or skipped before anything runs."""

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace

from o3_lightning.common.errors import InputError
from o3_lightning.data.requests import QuestionAnswer
from o3_lightning.data.stream import RequestStream
from o3_lightning.evaluation.splits import check_prompts
from o3_lightning.models.base import BaseModel

ANSWER_TOKENS = 32  # that a cut prompt leaves for its answer, or half of the limit if that is less
logger = logging.getLogger(__name__)


def fit_prompts(stream: RequestStream, base: BaseModel, too_long: str, training_tokens: int) -> RequestStream:
    """Returns a stream whose prompts all leave room for an answer in the model's context.

    Args:
        stream: the splits, and the files that their rows were read from; if rows may change, the result names
            no files.
        base: the model that will answer.
        too_long: "refuse", "cut" or "skip", see `DataConfig`.
        training_tokens: longest prompt and answer together in training, which the rows of requests have to
            fit; 0 takes the context.

    Raises:
        InputError: a prompt is too long and is to be refused; the message names file and line, or the row.
    """
    if too_long == "refuse":
        check_prompts(stream, base, training_tokens)
        return stream

    def fit(rows: Sequence[QuestionAnswer], limit: int) -> tuple[QuestionAnswer, ...]:
        fitted = tuple(fit_rows(rows, base, limit, skip=too_long == "skip"))
        changed = sum(row not in fitted for row in rows)
        if changed:
            logger.warning("%d of %d rows had prompts that are too long (%s)", changed, len(rows), too_long)
        return fitted

    limit = min(training_tokens or base.context_tokens, base.context_tokens)
    requests = (replace(each, rows=fit(each.rows, limit)) for each in stream.requests)
    utility = {split: fit(rows, base.context_tokens) for split, rows in stream.utility.items()}
    test, verbmem = (
        {name: fit(rows, base.context_tokens) for name, rows in split.items()}
        for split in (stream.test, stream.verbmem)
    )
    holdout = fit(stream.holdout, base.context_tokens)
    fitted = replace(stream, requests=tuple(requests), utility=utility, test=test, verbmem=verbmem)
    return replace(fitted, holdout=holdout, files=())


def fit_rows(
    rows: Sequence[QuestionAnswer], base: BaseModel, limit: int, *, skip: bool
) -> Iterator[QuestionAnswer]:
    """Yields rows whose prompts take less than `limit` tokens."""
    for row in rows:
        prompts = [row.prompt, *row.held_out_prompts]
        fitting = [prompt for prompt in prompts if base.count_tokens(prompt) < limit]
        if not skip:
            fitting = [cut_prompt(prompt, base, limit) for prompt in prompts]
        if not skip or row.prompt in fitting:
            yield replace(row, prompt=fitting[0], held_out_prompts=tuple(fitting[1:]))


def cut_prompt(prompt: str, base: BaseModel, limit: int) -> str:
    """Returns the beginning of a prompt that leaves room for an answer; a prompt that fits is not changed."""
    if base.count_tokens(prompt) < limit:
        return prompt
    room = min(ANSWER_TOKENS, limit // 2)
    ids = list(base.tokenizer(prompt, add_special_tokens=False)["input_ids"])
    while ids:
        over = base.count_tokens(prompt) - (limit - room)
        if over <= 0:
            return prompt
        ids = ids[:-over]
        prompt = str(base.tokenizer.decode(ids)).strip()
    raise InputError(f"the template alone takes more than {limit - room} tokens", field="prompt")
