"""Refuses, before anything is asked or trained, what a model cannot answer."""

from __future__ import annotations

from o3_lightning.common.errors import InputError
from o3_lightning.data.requests import read_rows
from o3_lightning.data.stream import RequestStream
from o3_lightning.evaluation.evaluate import splits_of
from o3_lightning.models.base import BaseModel

__all__ = ["check_prompts"]


def check_prompts(stream: RequestStream, base: BaseModel) -> None:
    """Refuses a prompt that leaves the model no room for an answer.

    Args:
        stream: every split is looked at, and every file that rows came from, so that file and line are told.
        base: the model that will be asked.

    Raises:
        InputError: a prompt is as long as the model's context, or longer.
    """
    for path in stream.files:
        for _ in read_rows(path, count_tokens=base.count_tokens, context_tokens=base.context_tokens):
            pass
    for owner, split, rows, _ in splits_of(stream):
        for number, row in enumerate(rows, start=1):
            tokens = base.count_tokens(row.prompt)
            if tokens >= base.context_tokens:
                message = f"{owner}/{split}, row {number}: {tokens} tokens"
                message = f"{message}, the model's context is {base.context_tokens}: {row.prompt[:60]!r}"
                raise InputError(message, field="prompt")
