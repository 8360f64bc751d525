"""Requests from a user's own JSON-lines files."""

from __future__ import annotations

from o3_lightning.data.config import DataConfig
from o3_lightning.data.requests import QuestionAnswer, read_requests, read_rows
from o3_lightning.data.stream import RequestStream

__all__ = ["load"]


def load(config: DataConfig, seed: int) -> RequestStream:
    """Returns the requests in the configured files and, where there is one, the retain file as utility.

    Args:
        config: `requests` names the files in the order of unlearning, `retain` the file of what stays,
            `holdout` that of what no model was shown.
        seed: not used; nothing is drawn.

    Raises:
        InputError: a file, line or field is not as it has to be.
    """
    requests = tuple(read_requests(config.requests))
    utility: dict[str, tuple[QuestionAnswer, ...]] = {}
    if config.retain is not None:
        utility["retain"] = tuple(row for _, _, row in read_rows(config.retain))
    holdout = () if config.holdout is None else tuple(row for _, _, row in read_rows(config.holdout))
    others = tuple(path for path in (config.retain, config.holdout) if path is not None)
    return RequestStream("jsonl", requests, utility, holdout=holdout, files=(*config.requests, *others))
