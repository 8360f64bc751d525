"""Refuses, before anything is asked, what a model cannot answer."""

from __future__ import annotations

from o3_lightning.base import BaseModel
from o3_lightning.data.config import DataConfig
from o3_lightning.data.stream import RequestStream
from o3_lightning.errors import InputError
from o3_lightning.evaluation.evaluate import splits_of
from o3_lightning.requests import read_requests, read_rows

__all__ = ["check_prompts"]


def check_prompts(stream: RequestStream, base: BaseModel, data: DataConfig) -> None:
    """Refuses a prompt that leaves the model no room for an answer.

    Args:
        stream: every split is looked at.
        base: the model that will be asked.
        data: where the stream came from; rows of a user's own files are named with file and line.

    Raises:
        InputError: a prompt is as long as the model's context, or longer.
    """
    limits = {"count_tokens": base.count_tokens, "context_tokens": base.context_tokens}
    if data.name == "jsonl":  # read again, now that tokens can be counted
        read_requests(data.requests, **limits)  # type: ignore[arg-type]
        if data.retain is not None:
            list(read_rows(data.retain, **limits))  # type: ignore[arg-type]
    for owner, split, rows, _ in splits_of(stream):
        for number, row in enumerate(rows, start=1):
            tokens = base.count_tokens(row.prompt)
            if tokens >= base.context_tokens:
                message = f"{owner}/{split}, row {number}: {tokens} tokens"
                message = f"{message}, the model's context is {base.context_tokens}: {row.prompt[:60]!r}"
                raise InputError(message, field="prompt")
